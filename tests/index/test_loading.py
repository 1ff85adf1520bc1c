"""The start of an index: what two threads read, check and write is what one would, and an error of either ends both."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from rankone.index import DeviceProblem, Index, IndexDamaged, IndexProblem, IndexUnavailable, Item, loading
from rankone.index.database import wal_files
from rankone.index.exact import ExactGallery
from rankone.index.gallery import RowTable
from rankone.index.items import Row
from rankone.index.loading import load
from rankone.index.reader import Reader
from tests.index.conftest import DIM, SPEC, some_items

COUNT = 40


@pytest.fixture
def path(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of an index of 40 items that is read three rows at a time; an item is damaged."""
    monkeypatch.setattr(loading, "_TILE", 3)
    with closing(Index(path)) as index:
        index.put(some_items(COUNT))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE items SET metadata = '{}' WHERE id = '7'")
    return path


def loaded(path: Path) -> tuple[RowTable, ExactGallery, int, set[str]]:
    """What is in memory, the sequence number, and the ids left out."""
    table, gallery = RowTable(), ExactGallery(DIM)
    with closing(Reader(path)) as reader:
        return table, gallery, *load(reader, SPEC, gallery, table, 1)


def threads() -> list[str]:
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith(("rankone-load", "rankone-read-ahead"))]


def test_every_intact_row_is_in_memory_in_the_order_of_the_disk(path: Path) -> None:
    table, gallery, sequence, damaged = loaded(path)
    expected = [item for item in some_items(COUNT) if item.id != "7"]
    assert (damaged, sequence) == ({"7"}, COUNT)
    assert table.ids == [item.id for item in expected]
    assert table.sequences.tolist() == [n for n in range(1, COUNT + 1) if n != 8]
    vectors = np.stack([item.vector for item in expected]).astype(np.float16)
    np.testing.assert_array_equal(gallery._blocks[0][: len(expected)], vectors)
    assert threads() == []


def test_memory_that_is_short_ends_the_reading(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object) -> None:
        raise DeviceProblem("there is no memory")

    monkeypatch.setattr(ExactGallery, "write", short)
    with pytest.raises(DeviceProblem, match="there is no memory") as caught:
        loaded(path)
    assert (threads(), caught.value.__traceback__ is not None) == ([], True)


def test_what_cannot_be_read_is_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = Reader.everything

    def broken(self: Reader) -> Iterator[Row]:
        for number, row in enumerate(everything(self)):
            if number == 20:
                raise IndexProblem("no such column")
            yield row

    monkeypatch.setattr(Reader, "everything", broken)
    with pytest.raises(IndexDamaged, match=r"default\.sqlite is damaged: no such column"):
        loaded(path)
    assert threads() == []


def test_the_file_is_read_ahead_to_its_end_or_until_that_is_pointless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_PIECE", 10)
    (tmp_path / "file").write_bytes(bytes(95))
    ahead = loading.ReadAhead(tmp_path / "file")
    ahead._thread.join()
    assert ahead._file.tell() == 95
    ahead.close()
    assert ahead._file.closed
    passed = threading.Event()
    passed.set()
    monkeypatch.setattr(loading, "Event", lambda: passed)
    stopped = loading.ReadAhead(tmp_path / "file")
    stopped.stop()
    assert (stopped._file.tell(), stopped._file.closed) == (0, False)
    stopped.close()
    with pytest.raises(IndexUnavailable, match="cannot be opened"):
        loading.ReadAhead(tmp_path / "nowhere")


def test_another_program_does_not_take_an_open_index_for_unused(index: Index, tmp_path: Path) -> None:
    """The last program that closes a file of SQLite moves its log into it and removes the log, by the locks of others."""
    index.put([Item("new", some_items(1)[0].vector)])
    count, (log, _) = len(index), wal_files(index.path)
    look = (
        f"import sqlite3; c = sqlite3.connect({str(index.path)!r}); print(*c.execute('PRAGMA user_version')); c.close()"
    )
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, check=True).stdout == b"(0,)\n"
    assert log.exists()
    index.put([Item("newer", some_items(1)[0].vector)])
    shutil.copy(index.path, tmp_path / "left.sqlite")
    shutil.copy(log, tmp_path / "left.sqlite-wal")
    with closing(Index(tmp_path / "left.sqlite")) as left:
        assert len(left) == count + 1
