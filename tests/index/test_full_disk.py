"""A disk without room: what is told, what still works, and what is kept for it. Other faults of a disk, each by its name."""

from __future__ import annotations

import errno
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rankone.index import (
    Index,
    IndexDamaged,
    Indexes,
    IndexFull,
    IndexProblem,
    IndexUnavailable,
    Item,
    Spec,
    faults,
    registry,
)
from rankone.index.ballast import Ballast
from tests.disks import fill, free_bytes, read_only, small_disk
from tests.index.conftest import MODEL
from tests.index.oracle import unit

DIM = 1000
VECTORS = unit(20, DIM)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 8) as disk:
        yield disk


def some(first: int, count: int) -> list[Item]:
    return [Item(str(n), VECTORS[n % 20]) for n in range(first, first + count)]


def wait_until(is_so: Callable[[], bool]) -> None:
    """Fails after half a minute."""
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def filled(indexes: Indexes) -> tuple[Index, int]:
    """The index `default`, to which items were added until there was no room, and how many."""
    indexes.acquire(MODEL, DIM)
    index, count = indexes.open("default"), 0
    text = "there is no room left on the disk; nothing of this request was stored"
    with pytest.raises(IndexFull, match=text):  # noqa: PT012 - until it is raised
        while True:
            index.put(some(count, 20))
            count += 20
    assert len(index) == count
    return index, count


def ids(index: Index) -> set[str]:
    return {item.id for _, item in index.page(10_000)}


def test_items_are_deleted_on_a_full_disk_and_others_take_their_place(disk: Path) -> None:
    indexes = Indexes(disk / "index")
    index, count = filled(indexes)
    fill(disk)
    assert free_bytes(disk) == 0
    for first in range(0, 200, 40):
        assert index.delete([str(n) for n in range(first, first + 40)]) == 40
    assert len(index) == count - 200
    assert index.problem is None
    index.put(some(10_000, 20))
    expected = {str(n) for n in [*range(200, count), *range(10_000, 10_020)]}
    assert ids(index) == expected
    indexes.close()
    indexes = Indexes(disk / "index")
    assert ids(indexes.open("default")) == expected
    indexes.close()


def test_the_room_that_is_kept_is_not_for_adding_and_is_kept_again(disk: Path) -> None:
    indexes = Indexes(disk / "index")
    index, count = filled(indexes)
    ballast = disk / "index" / ".ballast"
    assert ballast.stat().st_blocks * 512 == 8 * 2**20 // 16
    index.put(some(0, 1))  # takes no more room, as the log is begun anew
    filling = fill(disk)
    indexes._ballast.release()
    with filling.open("ab") as file:
        file.write(bytes(free_bytes(disk) // 2))  # less than what was kept is free now
    with pytest.raises(IndexFull, match="Delete items, or free 0.5 MB"):
        index.put(some(count, 1))
    with pytest.raises(IndexFull, match="no room left on the disk for the index 'mine'; nothing was made"):
        indexes.create("mine", Spec(MODEL, DIM))
    assert index.delete(["0"]) == 1
    filling.unlink()
    index.put(some(count, 1))
    assert ballast.stat().st_blocks * 512 == 8 * 2**20 // 16
    indexes.close()


def test_an_index_is_dropped_on_a_full_disk_and_none_is_made(disk: Path) -> None:
    indexes = Indexes(disk / "index")
    indexes.create("mine", Spec(MODEL, DIM))
    indexes.open("mine").put(some(0, 200))
    filled(indexes)
    filling = fill(disk)
    before = sorted(path.name for path in (disk / "index").iterdir())
    with pytest.raises(IndexFull, match="there is no room left on the disk for the index 'new'; nothing was made"):
        indexes.create("new", Spec(MODEL, DIM))
    assert sorted(path.name for path in (disk / "index").iterdir()) == before
    assert indexes.names() == ["default", "mine"]
    indexes.drop("mine")
    assert not list((disk / "index").glob("*mine*"))
    assert free_bytes(disk) > 200 * 2 * DIM
    filling.unlink()
    assert indexes.create("new", Spec(MODEL, DIM))
    indexes.close()


def test_a_start_on_a_full_disk_opens_with_the_room_that_is_kept(disk: Path) -> None:
    indexes = Indexes(disk / "index")
    _, count = filled(indexes)
    indexes.close()
    fill(disk)
    indexes = Indexes(disk / "index")
    indexes.acquire(MODEL, DIM)
    assert indexes.problems() == {}
    index = indexes.open("default")
    assert len(index) == count
    assert index.delete(["0", "1"]) == 2
    indexes.close()


def test_a_start_without_any_room_says_so_and_opens_once_there_is(
    disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By itself and when it is asked for; logged once, however often it is tried. The file is not called damaged."""
    indexes = Indexes(disk / "index")
    indexes.acquire(MODEL, DIM)
    indexes.open("default").put(some(0, 5))
    indexes.close()
    (disk / "index" / ".ballast").unlink()
    filling = fill(disk)
    monkeypatch.setattr(registry, "_RETRY_S", 0.01)
    read, tries = Indexes._read, list[str]()

    def counted(self: Indexes, name: str) -> Index:
        tries.append(name)
        return read(self, name)

    monkeypatch.setattr(Indexes, "_read", counted)
    with caplog.at_level(logging.WARNING, "rankone"):
        indexes = Indexes(disk / "index")
        indexes.acquire(MODEL, DIM)
        (problem,) = indexes.problems().values()
        assert "the disk is full. Free some space" in problem
        assert "backup" not in problem
        wait_until(lambda: len(tries) > 5)
        filling.unlink()
        wait_until(lambda: not indexes.problems())
    assert len(indexes.open("default", MODEL)) == 5
    told = [record.message for record in caplog.records if record.message.startswith("index default")]
    assert [("the disk is full" in text, "works again" in text) for text in told] == [(True, False), (False, True)]
    indexes.close()


def test_a_request_opens_it_too_but_not_every_one(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexes = Indexes(disk / "index")
    indexes.create("mine", Spec(MODEL, DIM))
    indexes.close()
    (disk / "index" / ".ballast").unlink()
    filling = fill(disk)
    indexes = Indexes(disk / "index")
    with pytest.raises(IndexFull, match="the disk is full"):
        indexes.open("mine")
    filling.unlink()
    with pytest.raises(IndexFull, match="the disk is full"):
        indexes.open("mine")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    assert len(indexes.open("mine")) == 0
    indexes.close()


def test_dropping_on_a_read_only_disk_leaves_the_index_in_service(disk: Path) -> None:
    indexes = Indexes(disk / "index")
    indexes.create("mine", Spec(MODEL, DIM))
    index = indexes.open("mine")
    index.put(some(0, 5))
    with read_only(disk / "index"):
        with pytest.raises(
            IndexUnavailable, match="'mine' cannot be dropped and stays as it is: .*Read-only file system"
        ):
            indexes.drop("mine")
        assert indexes.open("mine") is index
        assert len(index.search(VECTORS[:1], 10)[0]) == 5
    index.put(some(5, 1))
    indexes.drop("mine")
    assert indexes.names() == []
    indexes.close()


def test_a_file_that_cannot_be_opened_or_read_is_not_called_damaged(tmp_path: Path) -> None:
    indexes = Indexes(tmp_path)
    indexes.create("mine", Spec(MODEL, DIM))
    indexes.close()
    (tmp_path / "mine.sqlite").rename(tmp_path / "away")
    (tmp_path / "mine.sqlite").symlink_to("mine.sqlite")
    indexes = Indexes(tmp_path)
    with pytest.raises(IndexUnavailable, match="mine.sqlite cannot be opened .Too many levels of symbolic links."):
        indexes.open("mine")
    (tmp_path / "away").rename(tmp_path / "mine.sqlite")
    indexes._broken["mine"] = indexes._broken["mine"]._replace(retry_at=0)
    assert len(indexes.open("mine")) == 0
    indexes.close()


def test_four_faults_have_four_sentences(tmp_path: Path) -> None:
    """Of SQLite and of the system. Only damage asks for a backup, and only the others are tried again."""
    path = tmp_path / "mine.sqlite"

    def of_sqlite(name: str) -> Exception:
        error = sqlite3.OperationalError("what SQLite says")
        error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, name), name
        return faults.of_sqlite(error, path)

    full, failing, closed, damaged = (
        "the disk is full",
        "the disk failed",
        "cannot be opened",
        "restore it from a backup",
    )
    expected: list[tuple[Exception, type[IndexProblem], str]] = [
        (of_sqlite("SQLITE_FULL"), IndexFull, full),
        (of_sqlite("SQLITE_IOERR_SHMSIZE"), IndexFull, full),
        (of_sqlite("SQLITE_IOERR_READ"), IndexUnavailable, failing),
        (of_sqlite("SQLITE_CANTOPEN"), IndexUnavailable, closed),
        (of_sqlite("SQLITE_READONLY"), IndexUnavailable, closed),
        (of_sqlite("SQLITE_BUSY"), IndexUnavailable, "another process is using it"),
        (of_sqlite("SQLITE_CORRUPT"), IndexDamaged, damaged),
        (of_sqlite("SQLITE_NOTADB"), IndexDamaged, damaged),
        (faults.of_system(OSError(errno.ENOSPC, "No space left on device"), path), IndexFull, full),
        (faults.of_system(OSError(errno.EDQUOT, "Disk quota exceeded"), path), IndexFull, full),
        (faults.of_system(OSError(errno.EIO, "Input/output error"), path), IndexUnavailable, failing),
        (faults.of_system(OSError(errno.EACCES, "Permission denied"), path), IndexUnavailable, closed),
        (faults.of_system(OSError(errno.EMFILE, "Too many open files"), path), IndexUnavailable, closed),
    ]
    for error, kind, sentence in expected:
        assert type(error) is kind
        assert [text in str(error) for text in (full, failing, closed, damaged)].count(True) == (kind is not None) - (
            "another process" in sentence
        )
        assert sentence in str(error)


def test_a_small_disk_keeps_less(tmp_path: Path, disk: Path) -> None:
    assert Ballast(disk).num_bytes == 2**19
    assert Ballast(tmp_path).num_bytes == 2**24
    assert np.isclose(free_bytes(disk), 8 * 2**20 - 2**19, atol=2**14)
