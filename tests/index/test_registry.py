"""Indexes of a folder: several, of several models, made, dropped and damaged."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankone.index import (
    Index,
    IndexConflict,
    IndexDamaged,
    Indexes,
    IndexProblem,
    IndexUnavailable,
    Spec,
    UnknownIndex,
    registry,
)
from rankone.index.database import create_file
from tests.index.conftest import DIM, MODEL, some_items
from tests.index.oracle import unit

OTHER = "b" * 64


def test_default_is_there_and_others_are_made_and_dropped(indexes: Indexes, folder: Path) -> None:
    indexes.acquire(MODEL, DIM)
    assert indexes.names() == ["default"]
    mine = Spec(MODEL, DIM, "float32", thumbnails=True)
    assert indexes.create("mine", mine)
    assert not indexes.create("mine", mine)
    indexes.open("mine", MODEL).put(some_items(3))
    assert indexes.count("mine") == len(indexes.open("mine", MODEL)) == 3
    assert indexes.spec("mine") == indexes.open("mine").spec == mine
    with pytest.raises(IndexConflict, match="there is an index 'mine' already, exact in float32 with thumbnails"):
        indexes.create("mine", Spec(MODEL, DIM))
    indexes.drop("mine")
    for act in (indexes.drop, indexes.open, indexes.spec):
        with pytest.raises(UnknownIndex, match="there is no index 'mine'"):
            act("mine")
    assert sorted(path.name for path in folder.iterdir() if "mine" in path.name) == []
    assert indexes.create("mine", Spec(MODEL, DIM))
    assert len(indexes.open("mine")) == 0


@pytest.mark.parametrize("name", ["", "-a", "A", "a.b", "../a", "a/b", "a" * 65, "é", "a\n"])
def test_a_name_that_is_no_file_name_is_refused(indexes: Indexes, name: str) -> None:
    with pytest.raises(IndexProblem, match="cannot name an index"):
        indexes.create(name, Spec(MODEL, DIM))


def test_a_model_cannot_use_the_indexes_of_another(indexes: Indexes) -> None:
    """The indexes of both are open, as when one model follows another."""
    indexes.acquire(MODEL, DIM)
    indexes.open("default", MODEL).put(some_items(2))
    indexes.acquire(OTHER, DIM)
    assert indexes.names() == ["default"]
    with pytest.raises(IndexConflict, match=f"made with the bundle {'a' * 16}, and {'b' * 16} is being served"):
        indexes.open("default", OTHER)
    assert indexes.create("new", Spec(OTHER, DIM))
    with pytest.raises(IndexConflict, match="index 'new'"):
        indexes.open("new", MODEL)
    with pytest.raises(IndexConflict, match="was made with the bundle"):
        indexes.create("new", Spec(MODEL, DIM))
    assert len(indexes.open("default", MODEL)) == 2


def test_the_indexes_of_a_model_are_closed_with_its_last_user(indexes: Indexes) -> None:
    """They would keep gigabytes that nobody can search."""
    for _ in range(2):
        indexes.acquire(MODEL, DIM)
    indexes.open("default").put(some_items(2))
    indexes.acquire(OTHER, DIM)
    indexes.create("new", Spec(OTHER, DIM))
    indexes.open("new").put(some_items(3))
    indexes.release(MODEL)
    assert indexes.count("default") == 2
    indexes.release(MODEL)
    assert (indexes.count("default"), indexes.count("new")) == (0, 3)
    indexes.acquire(MODEL, DIM)
    assert indexes.count("default") == 2


class Slow:
    """Something that has begun and waits."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.go_on.wait(30)

    @contextmanager
    def meanwhile(self, act: Callable[[], object]) -> Iterator[None]:
        """The block runs while `act` does."""
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(act)
            try:
                assert self.begun.wait(30)
                yield
            finally:
                self.go_on.set()
            done.result()


def test_open_indexes_are_found_while_another_is_read_from_disk(
    indexes: Indexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may take minutes; the event loop asks for them without a thread of its own."""
    slow = Slow()
    for model in (MODEL, OTHER):
        indexes.acquire(model, DIM)
    indexes.open("default").put(some_items(2))
    indexes.create("other", Spec(OTHER, DIM))
    indexes.release(OTHER)

    def opened(path: Path, *args: Any) -> Index:
        if path.stem == "other":
            slow()
        return Index(path, *args)

    monkeypatch.setattr(registry, "Index", opened)
    with slow.meanwhile(partial(indexes.acquire, OTHER, DIM)):
        assert len(indexes.open("default")) == 2
        assert indexes.create("new", Spec(MODEL, DIM))
        assert indexes.open("new").put(some_items(1)) == 1
        assert indexes.problems() == {}
    assert indexes.count("other") == 0


def test_an_index_is_gone_at_once_while_it_is_being_dropped(indexes: Indexes, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    for name in ("default", "other"):
        indexes.create(name, Spec(MODEL, DIM))
    other = indexes.open("other")
    close = other.close

    def close_slowly() -> None:
        slow()
        close()

    monkeypatch.setattr(other, "close", close_slowly)
    with slow.meanwhile(partial(indexes.drop, "other")):
        assert len(indexes.open("default")) == 0
        assert indexes.names() == ["default"]
        with pytest.raises(UnknownIndex):
            indexes.open("other")


def test_an_index_that_could_not_be_dropped_is_still_there(indexes: Indexes, monkeypatch: pytest.MonkeyPatch) -> None:
    indexes.create("mine", Spec(MODEL, DIM))
    indexes.open("mine").put(some_items(2))

    def fail(self: Path, target: Path) -> None:
        raise PermissionError(f"{target} cannot be made")

    index = indexes.open("mine")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(IndexUnavailable, match="the index 'mine' cannot be dropped and stays as it is"):
            indexes.drop("mine")
    assert indexes.open("mine") is index
    index.put(some_items(3))
    assert len(index) == 3


def test_everything_is_there_after_a_restart(folder: Path) -> None:
    for turn in range(2):
        indexes = Indexes(folder)
        indexes.acquire(MODEL, DIM)
        if turn == 0:
            indexes.create("mine", Spec(MODEL, DIM, "float32"))
            indexes.open("mine").put(some_items(4))
        else:
            assert indexes.names() == ["default", "mine"]
            assert np.array_equal(indexes.open("mine").vectors(["2", "0"]), unit(4, DIM)[[2, 0]])
        indexes.close()


def test_a_second_process_is_refused(indexes: Indexes, folder: Path) -> None:
    code = f"from pathlib import Path; from rankone.index import Indexes; Indexes(Path({str(folder)!r}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another process is using it" in ended.stderr
    indexes.close()
    Indexes(folder).close()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IndexProblem, match="cannot be opened"):
        Indexes(tmp_path / "file" / "indexes")


def test_a_damaged_file_is_named_and_the_others_work(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("cut", "mine"):
        create_file(folder / f"{name}.sqlite", Spec(MODEL, DIM))
    (folder / "diary.sqlite").write_bytes(b"a diary, not a database" * 100)
    indexes = Indexes(folder)
    indexes.open("cut").put(some_items(200))
    indexes.close()
    with (folder / "cut.sqlite").open("r+b") as file:
        file.truncate(file.seek(0, 2) // 2)
    indexes = Indexes(folder)
    indexes.acquire(MODEL, DIM)
    assert indexes.open("mine").put(some_items(2)) == 2
    assert indexes.problems().keys() == {"cut", "diary"}
    for name in ("cut", "diary"):
        with pytest.raises(IndexDamaged, match=f"{name}.sqlite"):
            indexes.open(name, MODEL)
        assert indexes.count(name) == 0
    assert (folder / "diary.sqlite").read_bytes().startswith(b"a diary")
    indexes.drop("diary")
    assert indexes.names() == ["cut", "default", "mine"]
    indexes.close()


def test_files_that_a_dead_process_was_making_or_dropping_are_removed(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in (".a.sqlite.partial", ".a.sqlite.partial-wal"):
        (folder / name).touch()
    Indexes(folder).close()
    assert sorted(path.name for path in folder.iterdir()) == [".ballast", ".lock"]
