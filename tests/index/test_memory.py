"""Memory that is searched: items that do not fit are refused before they are stored, and memory that is not needed is freed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from rankone.index import (
    DeviceProblem,
    Index,
    IndexDamaged,
    IndexFull,
    IndexProblem,
    IndexReadOnly,
    Item,
    Query,
    SearchOptions,
    exact,
)
from rankone.index.change import Effect
from rankone.index.exact import ExactGallery
from tests.index.conftest import DIM
from tests.index.oracle import unit

ROWS = 24
"""There is memory for so many."""


@pytest.fixture
def path(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of an index that takes memory for 8 rows at a time."""
    monkeypatch.setattr(exact, "_TILE", 8)
    monkeypatch.setattr(exact, "_BLOCK_BYTES", 1)
    fit = ExactGallery.fit

    def limited(self: ExactGallery, rows: int) -> None:
        if rows > ROWS:
            raise DeviceProblem(f"there is no memory for {rows} rows")
        fit(self, rows)

    monkeypatch.setattr(ExactGallery, "fit", limited)
    return path


def items(first: int, count: int) -> list[Item]:
    return [Item(f"{i:02}", unit(1, DIM, seed=i)[0]) for i in range(first, first + count)]


def found(index: Index) -> list[str]:
    return sorted(hit.id for hit in index.search(unit(1, DIM), 100)[0])


def test_items_that_do_not_fit_are_refused_and_everything_else_works(index: Index, path: Path) -> None:
    index.put(items(0, 20))
    with pytest.raises(IndexFull, match="nothing of this request was stored: there is no memory for 26 rows"):
        index.put(items(14, 12))
    index.put(items(16, 8))
    with pytest.raises(IndexFull):
        index.put(items(24, 1))
    index.put(items(0, ROWS))  # all of them are there
    assert (len(index), index.problem) == (ROWS, None)
    assert found(index) == [item.id for item in items(0, ROWS)]
    index.delete(["03"])
    index.put(items(24, 1))
    expected = sorted({item.id for item in items(0, 25)} - {"03"})
    assert found(index) == expected
    index.close()
    again = Index(path)
    assert found(again) == expected
    again.close()


def test_of_several_requests_those_that_fit_are_stored(index: Index) -> None:
    futures: list[Future[Effect]] = [index.submit(items(10 * i, 10)) for i in range(4)]
    stored = [future for future in futures if future.exception() is None]
    assert len(stored) == 2
    assert all(isinstance(future.exception(), IndexFull) for future in futures if future not in stored)
    assert len(found(index)) == len(index) == 20


def test_unneeded_memory_is_freed_by_the_next_write(index: Index) -> None:
    index.put(items(0, 20))
    assert index._searching._gallery.stable_row_counts == (17, 24)
    index.delete([item.id for item in items(0, 15)])
    index.put(items(0, 1))
    assert index._searching._gallery.stable_row_counts == (1, 8)
    assert found(index) == ["00", "15", "16", "17", "18", "19"]


def test_an_index_whose_rows_cannot_follow_the_disk_is_not_searched_and_tells_who_waits(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The item is on disk and is acknowledged; a search without it would be wrong, so there is none."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(ExactGallery, "write", fail)
    assert index.put(items(0, 1)) == 1
    for _ in range(2):
        with pytest.raises(IndexProblem, match="the search thread failed, start the service again: ZeroDivisionError"):
            index.search(unit(1, DIM), 1)
    assert "ZeroDivisionError" in str(index.problem)
    assert index.get("00").id == "00"
    with pytest.raises(IndexProblem, match="the search thread failed"):
        index.put(items(1, 10))


def test_a_search_that_waits_for_a_change_fails_with_it(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees the change on disk before the search thread is told of it."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    publish, go_on = index._writer._publish, threading.Event()

    def late(effects: list[Effect]) -> None:
        assert go_on.wait(10)
        publish(effects)

    monkeypatch.setattr(ExactGallery, "write", fail)
    monkeypatch.setattr(index._writer, "_publish", late)
    index.submit(items(0, 1))
    until(lambda: len(index.page(1)) == 1)
    answer = index.submit_search(Query(unit(1, DIM), [SearchOptions(1)]))
    until(index._searching._queue.empty)
    go_on.set()
    with pytest.raises(IndexProblem, match="the search thread failed"):
        answer.result(10)


def test_the_writer_answers_even_if_a_checkpoint_fails(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise MemoryError

    monkeypatch.setattr("rankone.index.writer._CHECKPOINT_BYTES", -1)
    monkeypatch.setattr(index._store, "checkpoint", fail)
    index.put(items(0, 1))
    with pytest.raises(IndexReadOnly, match="MemoryError"):
        index.submit(items(1, 1)).result(10)


def test_a_refused_file_is_closed(path: Path) -> None:
    index = Index(path)
    index.put([Item("a", np.eye(1, DIM, dtype=np.float32)[0])])
    index.close()
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 4096)
    with pytest.raises(IndexDamaged):
        Index(path)
    assert not [target for target in open_files() if str(path) in target]


def open_files() -> Iterator[str]:
    for descriptor in Path("/proc/self/fd").iterdir():
        if descriptor.is_symlink():
            yield str(descriptor.readlink())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
