"""The tables of indexes: made, found, dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from rankone.index.errors import IndexProblem
from rankone.index.postgres.database import Connection, lock_tables
from rankone.index.spec import Dtype, Kind, Spec

_MOST_NUMBERS: Final = 16_000
"""Of a vector of pgvector."""
_MOST_INDEXED: Final = 2_000
"""Of a vector that HNSW takes as it is; of longer ones, it takes the signs."""
_COLUMNS: Final = "number, name, fingerprint, dim, dtype, kind, thumbnails, sequence, count, recall, depth"


@dataclass(frozen=True)
class Entry:
    """A row of `rankone.indexes`: what an index is, and how it is now."""

    number: int
    name: str
    spec: Spec
    sequence: int
    count: int
    recall: float | None
    depth: int | None
    """Candidates that a compact search looks at, if it was measured."""

    @property
    def table(self) -> str:
        """Of its items."""
        return f"rankone.items_{self.number}"

    @property
    def vector_type(self) -> str:
        """Of its vectors, in pgvector's words."""
        return f"{'halfvec' if self.spec.dtype == 'float16' else 'vector'}({self.spec.dim})"

    @property
    def has_signs(self) -> bool:
        """Whether a compact search compares signs first; otherwise the graph is of the vectors themselves."""
        return self.spec.dim > _MOST_INDEXED


def entries(connection: Connection) -> list[Entry]:
    """All indexes, by name."""
    return [_entry(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM rankone.indexes ORDER BY name")]  # noqa: S608


def find(connection: Connection, name: str) -> Entry | None:
    """The index of that name, if there is one."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM rankone.indexes WHERE name = %s", (name,)).fetchone()  # noqa: S608
    return None if row is None else _entry(row)


def locked(connection: Connection, number: int) -> Entry | None:
    """The index of that number, if it is still there, for one change: others wait until the transaction ends."""
    query = f"SELECT {_COLUMNS} FROM rankone.indexes WHERE number = %s FOR UPDATE"  # noqa: S608
    row = connection.execute(query, (number,)).fetchone()
    return None if row is None else _entry(row)


def create(connection: Connection, name: str, spec: Spec) -> bool:
    """Makes an index; False if the same one is there. Raises IndexConflict or IndexProblem."""
    if spec.dim > _MOST_NUMBERS:
        raise IndexProblem(
            f"an index in PostgreSQL has vectors of at most {_MOST_NUMBERS:,} numbers, not {spec.dim:,}: index short embeddings"
        )
    lock_tables(connection)
    if (found := find(connection, name)) is not None:
        found.spec.check_same(spec, name)
        return False
    connection.execute(
        "INSERT INTO rankone.indexes (name, fingerprint, dim, dtype, kind, thumbnails) VALUES (%s, %s, %s, %s, %s, %s)",
        (name, spec.fingerprint, spec.dim, spec.dtype, spec.kind, spec.thumbnails),
    )
    made = find(connection, name)
    assert made is not None
    # The text of metadata is kept beside jsonb, which would change the order of its fields and how its numbers are written.
    connection.execute(
        f"""CREATE TABLE {made.table} (
            sequence bigint PRIMARY KEY,
            id text COLLATE "C" NOT NULL UNIQUE,
            metadata text NOT NULL,
            document jsonb NOT NULL GENERATED ALWAYS AS (metadata::jsonb) STORED,
            sha256 text,
            fingerprint text NOT NULL,
            vector {made.vector_type} NOT NULL,
            thumbnail bytea,
            checksum bytea NOT NULL
        )"""
    )
    connection.execute(
        f"ALTER TABLE {made.table} ALTER vector SET STORAGE EXTERNAL, ALTER thumbnail SET STORAGE EXTERNAL"
    )
    if spec.kind == "compact":
        how = f"(({signs('vector', spec.dim)}) bit_hamming_ops)"
        if not made.has_signs:
            how = f"(vector {'halfvec' if spec.dtype == 'float16' else 'vector'}_ip_ops)"
        connection.execute(f"CREATE INDEX ON {made.table} USING hnsw {how}")
    return True


def drop(connection: Connection, name: str) -> bool:
    """Drops an index with all its items; False if there is none of that name."""
    lock_tables(connection)
    if (found := find(connection, name)) is None:
        return False
    connection.execute("DELETE FROM rankone.indexes WHERE number = %s", (found.number,))
    connection.execute(f"DROP TABLE {found.table}")
    return True


def signs(vector: str, dim: int) -> str:
    """An expression for the signs of a vector; the index is on the same expression."""
    return f"binary_quantize({vector})::bit({dim})"


def _entry(row: tuple[Any, ...]) -> Entry:
    number, name, fingerprint, dim, dtype, kind, thumbnails, *state = row
    spec = Spec(fingerprint, dim, cast("Dtype", dtype), cast("Kind", kind), thumbnails)
    return Entry(number, name, spec, *state)
