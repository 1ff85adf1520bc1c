"""Files of indexes without a service: read, verified, backed up and restored.

Reading works beside a running service, and sees its last commit. Whatever writes into a folder of indexes needs it for itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rankone.index.backend import AnyReader
from rankone.index.database import PARTIAL, SUFFIX, companions, locked, publish
from rankone.index.errors import IndexConflict, IndexDamaged, IndexProblem, UnknownIndex
from rankone.index.items import Record
from rankone.index.loss import ignores_log
from rankone.index.reader import Reader
from rankone.index.spec import Spec

Tell = Callable[[int], None]
"""Is called with the number of items that were done since the last call."""
TellPages = Callable[[int, int], None]
"""Is called with the number of pages that are left, and of pages in all."""


def file_of(folder: Path, name: str) -> Path:
    """The file of an index. Raises UnknownIndex if there is none of that name."""
    path = folder / f"{name}{SUFFIX}"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob(f"*{SUFFIX}"))) or "none"
        raise UnknownIndex(f"there is no index {name!r} in {folder}; there are: {known}")
    return path


def require_exists(path: Path) -> Path:
    """The same path. Raises IndexProblem if nothing is there."""
    if not path.exists():
        raise IndexProblem(f"{path} is not there")
    return path


def require_intact(record: Record) -> Record:
    """The same record. Raises IndexDamaged if its checksum is wrong."""
    if not record.is_intact:
        raise IndexDamaged(f"the item {record.id!r} is damaged: add it again, or restore a backup")
    return record


@contextmanager
def reading_file(path: Path) -> Iterator[tuple[Reader, Spec]]:
    """A reader of one state of the index in a file, and the index's spec. Raises IndexProblem if it cannot be read."""
    is_immutable = ignores_log(require_exists(path))
    with closing(Reader(path, is_immutable=is_immutable)) as reader, reader.snapshot() as about:
        yield reader, about.spec


def damaged_among(reader: AnyReader, tell: Tell) -> list[str]:
    """The ids of all items with a wrong checksum.

    Raises:
        IndexDamaged: what holds them is damaged, so that any item may be missing.
    """
    found = []
    reader.check()
    for _, record in reader.everything():
        if not record.is_intact:
            found.append(record.id)
        tell(1)
    return found


def back_up(path: Path, target: Path, tell: TellPages) -> int:
    """Copies one state of an index, even while a service writes to it; returns the number of items.

    The copy is written under another name, every row of it is checked, and it is renamed when it is on disk. The log of an
    earlier file of that name is removed: SQLite would take it for the copy's, and write it into the copy.

    Raises:
        IndexConflict: `target` exists already.
        IndexDamaged: the index or the copy is damaged.
        IndexProblem: the copy cannot be written: there is no such folder, or no room.
    """
    if target.exists():
        raise IndexConflict(f"{target} is there already; name another file")
    partial = target.with_name(f".{target.name}{PARTIAL}")
    with reading_file(path) as (reader, _):
        try:
            partial.unlink(missing_ok=True)
            reader.backup(partial, tell)
            with reading_file(partial) as (copy, _):
                if damaged := damaged_among(copy, lambda _: None):
                    raise IndexDamaged(
                        f"{len(damaged)} items are damaged: {', '.join(damaged[:5])}; nothing was written"
                    )
                count = copy.count()
            for leftover in (*companions(partial), *companions(target)):
                leftover.unlink(missing_ok=True)
            publish(partial, target)
        except (OSError, sqlite3.Error) as error:
            raise IndexProblem(f"{target} cannot be written: {error}") from error
        finally:
            for leftover in (partial, *companions(partial)):
                leftover.unlink(missing_ok=True)
    return count


def restore(backup: Path, path: Path, tell: TellPages) -> int:
    """Makes an index of a backup, in a folder that no service uses; returns the number of items. See `back_up`."""
    with locked(path.parent):
        return back_up(backup, path, tell)
