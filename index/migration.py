"""Files of earlier versions, brought to the present schema in one transaction when they are first opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from rankone.index.database import SCHEMA, TABLES, Spec, as_problem, open_reader, open_writer, read_about, write_about
from rankone.index.items import Item, record_of
from rankone.index.writer import insert

_BATCH: Final = 1000


def migrate(path: Path) -> None:
    """Rewrites a file of schema 1, in which vectors and metadata lay in one table; leaves any other as it is.

    Raises:
        IndexProblem: it cannot be read or written.
    """
    with closing(open_reader(path)) as connection:
        about = read_about(connection, path)
    if about.get("schema") != "1":
        return
    spec = Spec(about["fingerprint"], int(about["dim"]))
    with closing(open_writer(path)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            _rewrite(connection, spec)
            connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise as_problem(error, path) from error


def _rewrite(connection: sqlite3.Connection, spec: Spec) -> None:
    connection.execute("ALTER TABLE items RENAME TO old_items")
    (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchone()
    _, *tables = [statement for statement in TABLES.split(";") if statement.strip()]  # the first is there
    for statement in tables:
        connection.execute(statement)
    for rows in _batches(connection.execute("SELECT sequence, id, vector, metadata FROM old_items")):
        records = [
            record_of(Item(item_id, np.frombuffer(vector, "<f2"), orjson.loads(metadata)), spec)
            for _, item_id, vector, metadata in rows
        ]
        insert(connection, [row[0] for row in rows], records)
    connection.execute("DROP TABLE old_items")
    values = {"schema": SCHEMA, "sequence": last, "dtype": spec.dtype, "kind": spec.kind, "thumbnails": spec.thumbnails}
    write_about(connection, values)


def _batches(cursor: sqlite3.Cursor) -> Iterator[list[tuple[int, str, bytes, str]]]:
    while rows := cursor.fetchmany(_BATCH):
        yield rows
