"""Reading the records of an index in one state of the database, and changing them in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, cast

import numpy as np
from pgvector import HalfVector, Vector

from rankone.index.backend import AnyReader
from rankone.index.change import Change, Effect
from rankone.index.errors import IndexDamaged, UnknownIndex
from rankone.index.filters import Field, Filter
from rankone.index.items import Record, Row, Summary
from rankone.index.postgres.database import Connection
from rankone.index.postgres.filters import has_scalar, label, sql_of
from rankone.index.postgres.tables import Entry, locked
from rankone.index.spec import About, Dtype, Spec

COLUMNS: Final = "sequence, id, metadata, sha256, fingerprint, vector, thumbnail, checksum"
_TILE: Final = 256
"""Rows that are fetched at once."""


class PostgresReader(AnyReader):
    """Reads on a connection that sees one state of the database."""

    def __init__(self, connection: Connection, entry: Entry) -> None:
        self._connection, self.entry = connection, entry

    def about(self) -> About:
        return About(self.entry.spec, self.entry.sequence, self.entry.recall)

    def check(self) -> None:
        """Compares the number of items with that which is kept. The pages are the database's own to check (`pg_amcheck`)."""
        if (count := self.count()) != self.entry.count:
            raise IndexDamaged(f"the index {self.entry.name!r} counts {self.entry.count:,} items and holds {count:,}")

    def map(self) -> bytes | None:
        """The map that is kept of the index, if there is one."""
        ((kept,),) = self._fetch("SELECT map FROM rankone.indexes WHERE number = %s", self.entry.number)
        return cast("bytes | None", kept)

    def count(self) -> int:
        return int(self._fetch(f"SELECT count(*) FROM {self.entry.table}")[0][0])  # noqa: S608

    def summaries(self) -> Iterator[Summary]:
        columns = "sequence, id, metadata, sha256, checksum"
        return map(Summary._make, self._each(f"SELECT {columns} FROM {self.entry.table} ORDER BY sequence"))  # noqa: S608

    def records(self, ids: Iterable[str]) -> dict[str, Record]:
        return {record.id: record for _, record in self._records("WHERE id = ANY(%s)", list(dict.fromkeys(ids)))}

    def page(self, limit: int, after: int, where: Filter | None = None) -> list[Row]:
        condition, parameters = sql_of(where)
        clause = f"WHERE sequence > %s AND {condition} ORDER BY sequence LIMIT %s"
        return self._records(clause, after, *parameters, limit)

    def everything(self) -> Iterator[Row]:
        query = f"SELECT {COLUMNS} FROM {self.entry.table} ORDER BY sequence"  # noqa: S608
        return (_row(row, self.entry.spec) for row in self._each(query))

    def at(self, sequences: Sequence[int]) -> Iterator[Row]:
        return iter(self._records("WHERE sequence = ANY(%s) ORDER BY sequence", list(sequences)))

    def values(self, field: Field, ids: Sequence[str]) -> dict[str, str]:
        """A metadata field as JSON by id; items where it is missing, a list or an object are left out."""
        value, scalar = label(field), has_scalar(field)
        query = f"SELECT id, {value.text} FROM {self.entry.table} WHERE {scalar.text} AND id = ANY(%s)"  # noqa: S608
        return dict(self._fetch(query, *value.parameters, *scalar.parameters, list(ids)))

    def _records(self, clause: str, *parameters: Any) -> list[Row]:
        query = f"SELECT {COLUMNS} FROM {self.entry.table} {clause}"  # noqa: S608
        return [_row(row, self.entry.spec) for row in self._fetch(query, *parameters)]

    def _fetch(self, query: str, *parameters: Any) -> list[Any]:
        return self._connection.execute(query, parameters, binary=True).fetchall()

    def _each(self, query: str) -> Iterator[Any]:
        """Rows, fetched some at a time: the server keeps the rest."""
        with self._connection.cursor("rankone_each", binary=True) as cursor:
            cursor.itersize = _TILE
            yield from cursor.execute(query)


def to_vector(numbers: Any, dtype: Dtype) -> HalfVector | Vector:
    """Numbers (dim,) as the database takes them."""
    return (HalfVector if dtype == "float16" else Vector)(np.asarray(numbers))


def to_bytes(vector: HalfVector | Vector, spec: Spec) -> bytes:
    """A vector of the database as files keep it."""
    return vector.to_numpy().astype(spec.stored).tobytes()


def _row(row: Sequence[Any], spec: Spec) -> Row:
    sequence, item_id, metadata, sha256, fingerprint, vector, thumbnail, checksum = row
    record = Record(item_id, metadata, sha256, fingerprint, to_bytes(vector, spec), thumbnail, checksum)
    return cast("int", sequence), record


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
    found = PostgresReader(connection, entry).records(patch.id for patch in change.patches)
    patched = (patch.apply(found.get(patch.id), entry.spec) for patch in change.patches)
    records = [*change.records, *patched]
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
