"""One change of an index, within a transaction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rankone.index.change import Change, Effect
from rankone.index.errors import UnknownIndex, UnknownItem
from rankone.index.items import Record
from rankone.index.patches import Patch
from rankone.index.postgres.database import Connection
from rankone.index.postgres.filters import sql_of
from rankone.index.postgres.reader import COLUMNS, PostgresReader, to_vector
from rankone.index.postgres.tables import Entry, locked


def make(connection: Connection, number: int, change: Change) -> Effect:
    """Makes a change of the index of that number, which no other service changes until the transaction ends.

    Every added item and every deletion takes a new sequence number, as in files.

    Raises:
        UnknownIndex: it has been dropped.
        UnknownItem, IndexDamaged, MetadataTooLong: of a patch.
    """
    entry = locked(connection, number)
    if entry is None:
        raise UnknownIndex("the index has been dropped")
    records = [*change.records, *(_patched(connection, entry, patch) for patch in change.patches)]
    ids = list(change.ids)
    if change.where is not None:
        condition, parameters = sql_of(change.where)
        query = f"SELECT id FROM {entry.table} WHERE {condition} ORDER BY sequence"  # noqa: S608
        ids += [item_id for (item_id,) in connection.execute(query, parameters)]
    removed = _remove(connection, entry, ids)
    replaced = _remove(connection, entry, [record.id for record in records])
    first = entry.sequence + bool(removed) + 1
    numbers = range(first, first + len(records))
    _insert(connection, entry, numbers, records)
    connection.execute(
        "UPDATE rankone.indexes SET sequence = %s, count = count + %s WHERE number = %s",
        (first - 1 + len(records), len(records) - len(removed) - len(replaced), number),
    )
    return Effect(first - 1 + len(records), removed, numbers, records)


def _patched(connection: Connection, entry: Entry, patch: Patch) -> Record:
    found = PostgresReader(connection, entry).records([patch.id])
    if patch.id not in found:
        raise UnknownItem(f"there is no item {patch.id!r}")
    return patch.apply(found[patch.id], entry.spec)


def _remove(connection: Connection, entry: Entry, ids: Sequence[str]) -> list[str]:
    """Deletes the rows of these ids; returns the ids that existed."""
    if not ids:
        return []
    query = f"DELETE FROM {entry.table} WHERE id = ANY(%s) RETURNING id"  # noqa: S608
    return [item_id for (item_id,) in connection.execute(query, (list(ids),))]


def _insert(connection: Connection, entry: Entry, numbers: Sequence[int], records: Sequence[Record]) -> None:
    if not records:
        return
    kind = entry.vector_type.partition("(")[0]
    query = f"COPY {entry.table} ({COLUMNS}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        copy.set_types(["int8", "text", "text", "text", "text", kind, "bytea", "bytea"])
        for number, record in zip(numbers, records, strict=True):
            vector = to_vector(np.frombuffer(record.vector, entry.spec.stored), entry.spec.dtype)
            texts = (record.id, record.metadata, record.sha256, record.fingerprint)
            copy.write_row((number, *texts, vector, record.thumbnail, record.checksum))
