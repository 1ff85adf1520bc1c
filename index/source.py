"""An index that a command reads or fills without a service: in a file, in PostgreSQL, or in a published version."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from rankone.index.backend import AnyIndex, AnyReader
from rankone.index.backup import Tell, damaged_among, file_of, reading_file
from rankone.index.database import SUFFIX, create_file, locked, map_file, publish_bytes
from rankone.index.errors import IndexProblem
from rankone.index.index import Index
from rankone.index.spec import Spec

if TYPE_CHECKING:
    from rankone.index.lance.index import LanceIndexes
    from rankone.index.postgres import PostgresIndexes

LANCE: Final = "lance:"
_NEEDS: Final = {
    "lance": "published versions need Lance",
    "postgres": "indexes in PostgreSQL need psycopg and pgvector",
}


@dataclass(frozen=True)
class Remote:
    """The index `stem` in a database, which services may use meanwhile, or its published version, at a place as given."""

    place: str = field(repr=False)
    stem: str

    def __str__(self) -> str:
        where = "PostgreSQL" if is_postgres(self.place) else self.place.removeprefix(LANCE)
        return f"the index {self.stem!r} in {where}"


Source = Path | Remote


def is_lance(place: str) -> bool:
    """Whether indexes are published versions, and not in a folder of that name."""
    return place.startswith(LANCE)


def is_postgres(place: str) -> bool:
    """Whether indexes are in PostgreSQL, and not in a folder of that name."""
    return place.startswith(("postgresql://", "postgres://"))


def open_postgres(url: str, timeout_s: float = 600.0) -> PostgresIndexes:
    """The indexes in a database; for the errors see `PostgresIndexes`, whose libraries nothing else needs."""
    indexes: PostgresIndexes = _module("postgres").PostgresIndexes(url, timeout_s)
    return indexes


def open_lance(place: str) -> LanceIndexes:
    """The published versions in `lance:FOLDER` or `lance:ADDRESS`; for the errors see `LanceIndexes`."""
    indexes: LanceIndexes = lance("index").LanceIndexes(place.removeprefix(LANCE))
    return indexes


def lance(part: str) -> ModuleType:
    """A module of `rankone.index.lance`. Raises IndexProblem if its library is missing."""
    os.environ.setdefault("LANCE_LOG", "error")  # it would warn of what is meant here, such as of datasets that are new
    return _module(f"lance.{part}")


def look_at(place: str) -> list[tuple[str, Spec, int]]:
    """Name, spec and number of items of every index in a database or of published versions; nothing is made.

    Raises:
        IndexProblem: they cannot be reached or used, or a library is missing.
    """
    if is_postgres(place):
        found: list[tuple[str, Spec, int]] = _module("postgres").look(place)
        return found
    with closing(open_lance(place)) as indexes:
        opened = {name: indexes.open(name) for name in indexes.names()}
        return [(name, index.spec, len(index)) for name, index in opened.items()]


def _module(name: str) -> ModuleType:
    """A module of `rankone.index`. Raises IndexProblem if its library is missing."""
    backend = name.partition(".")[0]
    try:
        return import_module(f"rankone.index.{name}")
    except ImportError as error:
        raise IndexProblem(f"{_NEEDS[backend]} ({error}): install rankone[{backend}]") from error


def source_of(place: str, name: str) -> Source:
    """The index of that name in a folder or in a database. Raises UnknownIndex if the folder has none of that name."""
    return Remote(place, name) if is_lance(place) or is_postgres(place) else file_of(Path(place), name)


def names_in(place: str) -> list[str]:
    """The names of all indexes in a folder or a database."""
    if not is_postgres(place) and not is_lance(place):
        return sorted(path.stem for path in Path(place).glob(f"*{SUFFIX}"))
    with opened(place) as indexes:
        return indexes.names()


def opened(place: str) -> AbstractContextManager[PostgresIndexes | LanceIndexes]:
    """Opens the indexes of a database, or published versions, until the block ends."""
    return closing(open_lance(place) if is_lance(place) else open_postgres(place))


@contextmanager
def reading(source: Source) -> Iterator[tuple[AnyReader, Spec]]:
    """A reader of one state of the index, and the index's spec. Raises IndexProblem if it cannot be read."""
    if isinstance(source, Path):
        with reading_file(source) as found:
            yield found
        return
    with opened(source.place) as indexes, indexes.open(source.stem).reading() as reader:
        yield reader, reader.about().spec


@contextmanager
def filling(source: Source, spec: Spec) -> Iterator[AnyIndex]:
    """The index, made if it is not there, to add items to.

    Raises:
        IndexConflict: it belongs to another model, or is a published version.
        IndexProblem: it cannot be opened; a folder of files is in use by another process.
    """
    if isinstance(source, Path):
        with locked(source.parent):
            if not source.exists():
                create_file(source, spec)
            with closing(Index(source)) as index:
                index.spec.check_model(spec.fingerprint, source.stem)
                yield index
        return
    with opened(source.place) as indexes:
        if source.stem not in indexes.names():
            indexes.create(source.stem, spec)
        indexes.open(source.stem).check_writable()
        yield indexes.open(source.stem, spec.fingerprint)


def damaged_rows(source: Source, tell: Tell) -> list[str]:
    """The ids of all items with a wrong checksum. Raises IndexDamaged if what holds them is damaged."""
    with reading(source) as (reader, _):
        return damaged_among(reader, tell)


def keep_map(source: Source, data: bytes) -> None:
    """Keeps a map with its index. Raises IndexProblem if it cannot be written."""
    if isinstance(source, Path):
        try:
            publish_bytes(map_file(source), data)
        except OSError as error:
            raise IndexProblem(f"{map_file(source)} cannot be written: {error}") from error
        return
    with closing(open_postgres(source.place)) as indexes:
        indexes.open(source.stem).keep_map(data)
