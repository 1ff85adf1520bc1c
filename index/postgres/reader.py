"""Reading the records of an index in one state of the database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, cast

import numpy as np
from pgvector import HalfVector, Vector

from rankone.index.errors import IndexDamaged
from rankone.index.filters import Field, Filter
from rankone.index.items import Record, Row
from rankone.index.postgres.database import Connection
from rankone.index.postgres.filters import has_scalar, label, sql_of
from rankone.index.postgres.tables import Entry
from rankone.index.spec import About, Dtype, Spec

COLUMNS: Final = "sequence, id, metadata, sha256, fingerprint, vector, thumbnail, checksum"
_TILE: Final = 256
"""Rows that are fetched at once."""


class PostgresReader:
    """Reads on a connection that sees one state of the database."""

    def __init__(self, connection: Connection, entry: Entry) -> None:
        self._connection, self.entry = connection, entry

    def about(self) -> About:
        """The spec, the last change and the recall."""
        return About(self.entry.spec, self.entry.sequence, self.entry.recall)

    def check(self) -> None:
        """Compares the number of items with that which is kept. The pages are the database's own to check (`pg_amcheck`)."""
        if (count := self.count()) != self.entry.count:
            raise IndexDamaged(f"the index {self.entry.name!r} counts {self.entry.count:,} items and holds {count:,}")

    def map(self) -> bytes | None:
        """The map that is kept of the index, if there is one."""
        ((kept,),) = self._fetch("SELECT map FROM rankone.indexes WHERE number = %s", self.entry.number)
        return None if kept is None else bytes(kept)

    def count(self) -> int:
        """The number of items."""
        return int(self._fetch(f"SELECT count(*) FROM {self.entry.table}")[0][0])  # noqa: S608

    def digest(self) -> str:
        """A hash of the checksums of all items, in order: equal only for equal content."""
        digest = hashlib.sha256()
        for (checksum,) in self._each(f"SELECT checksum FROM {self.entry.table} ORDER BY sequence"):  # noqa: S608
            digest.update(checksum)
        return digest.hexdigest()

    def origins(self) -> list[tuple[str, str | None, str]]:
        """Id, sha256 and metadata as JSON of every item, in order."""
        return self._fetch(f"SELECT id, sha256, metadata FROM {self.entry.table} ORDER BY sequence")  # noqa: S608

    def records(self, ids: Iterable[str]) -> dict[str, Record]:
        """The records with these ids; ids that are not in the index are left out."""
        return {record.id: record for _, record in self._records("WHERE id = ANY(%s)", list(dict.fromkeys(ids)))}

    def page(self, limit: int, after: int, where: Filter | None = None) -> list[Row]:
        """Up to `limit` records after sequence number `after` that match the filter, in order."""
        condition, parameters = sql_of(where)
        clause = f"WHERE sequence > %s AND {condition} ORDER BY sequence LIMIT %s"
        return self._records(clause, after, *parameters, limit)

    def everything(self) -> Iterator[Row]:
        """All records in order, some at a time."""
        query = f"SELECT {COLUMNS} FROM {self.entry.table} ORDER BY sequence"  # noqa: S608
        return (_row(row, self.entry.spec) for row in self._each(query))

    def every_sequence(self) -> list[int]:
        """The sequence numbers of all items, in order."""
        return [number for (number,) in self._fetch(f"SELECT sequence FROM {self.entry.table} ORDER BY sequence")]  # noqa: S608

    def at(self, sequences: Sequence[int]) -> Iterator[Row]:
        """The records with these sequence numbers, in order."""
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
    kept = None if thumbnail is None else bytes(thumbnail)
    data = to_bytes(vector, spec)
    return cast("int", sequence), Record(item_id, metadata, sha256, fingerprint, data, kept, bytes(checksum))
