"""Indexes of a folder: several, of several models, made, dropped, damaged and migrated."""

from __future__ import annotations

import json
import sqlite3
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
    Item,
    Spec,
    UnknownIndex,
    registry,
    serve,
)
from rankone.index.database import make
from tests.index.conftest import DIM, MODEL
from tests.index.oracle import unit

OTHER = "b" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "indexes"


@pytest.fixture
def indexes(folder: Path) -> Iterator[Indexes]:
    indexes = Indexes(folder)
    yield indexes
    indexes.close()


def items(count: int) -> list[Item]:
    return [Item(str(i), vector, {"i": i}) for i, vector in enumerate(unit(count, DIM))]


def test_default_is_there_and_others_are_made_and_dropped(indexes: Indexes, folder: Path) -> None:
    view = serve(indexes, MODEL, DIM)
    assert view.names() == ["default"]
    assert view.create("mine", "float32", thumbnails=True)
    assert not view.create("mine", "float32", thumbnails=True)
    view["mine"].put(items(3))
    assert view.describe("mine").count == view.count("mine") == 3
    assert view.describe("mine").spec == Spec(MODEL, DIM, "float32", "exact", True)
    with pytest.raises(IndexConflict, match="'mine' is there already, exact in float32 with thumbnails"):
        view.create("mine")
    view.drop("mine")
    for act in (view.drop, view.describe, view.__getitem__):
        with pytest.raises(UnknownIndex, match="there is no index 'mine'"):
            act("mine")
    assert sorted(path.name for path in folder.iterdir() if "mine" in path.name) == []
    assert view.create("mine")
    assert len(view["mine"]) == 0


@pytest.mark.parametrize("name", ["", "-a", "A", "a.b", "../a", "a/b", "a" * 65, "é", "a\n"])
def test_a_name_that_is_no_file_name_is_refused(indexes: Indexes, name: str) -> None:
    with pytest.raises(IndexProblem, match="cannot name an index"):
        serve(indexes, MODEL, DIM).create(name)


def test_every_model_sees_its_own_indexes(indexes: Indexes) -> None:
    """Two views at once, as when one model follows another; the indexes of both are open."""
    mine = serve(indexes, MODEL, DIM)
    mine["default"].put(items(2))
    theirs = serve(indexes, OTHER, DIM)
    assert theirs.names() == ["default"]
    with pytest.raises(IndexConflict, match=f"made with the bundle {'a' * 16}, and {'b' * 16} is being served"):
        theirs["default"]
    assert (theirs.describe("default").count, theirs.count("default")) == (None, 0)
    assert theirs.create("new")
    with pytest.raises(IndexConflict, match="index 'new'"):
        mine["new"]
    with pytest.raises(IndexConflict, match="was made with the bundle"):
        mine.create("new")
    assert mine.count("default") == 2


def test_the_indexes_of_a_model_that_is_not_used_any_more_are_closed(indexes: Indexes) -> None:
    """They would keep gigabytes that nobody can search."""
    views = [serve(indexes, MODEL, DIM) for _ in range(2)]
    views[0]["default"].put(items(2))
    theirs = serve(indexes, OTHER, DIM)
    theirs.create("new")
    theirs["new"].put(items(3))
    views[0].close()
    assert indexes.count("default") == 2
    views[1].close()
    assert (indexes.count("default"), indexes.count("new")) == (0, 3)
    assert serve(indexes, MODEL, DIM).count("default") == 2


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
    mine, slow = serve(indexes, MODEL, DIM), Slow()
    mine["default"].put(items(2))
    serve(indexes, OTHER, DIM).create("other")
    indexes.release(OTHER)

    def opened(path: Path, *args: Any) -> Index:
        if path.stem == "other":
            slow()
        return Index(path, *args)

    monkeypatch.setattr(registry, "Index", opened)
    with slow.meanwhile(partial(serve, indexes, OTHER, DIM)):
        assert len(mine["default"]) == 2
        assert mine.create("new")
        assert mine["new"].put(items(1)) == 1
        assert mine.problems() == {}
    assert indexes.count("other") == 0


def test_an_index_is_gone_at_once_while_it_is_being_dropped(indexes: Indexes, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, slow = serve(indexes, MODEL, DIM), Slow()
    mine.create("other")
    other = mine["other"]
    close = other.close

    def close_slowly() -> None:
        slow()
        close()

    monkeypatch.setattr(other, "close", close_slowly)
    with slow.meanwhile(partial(mine.drop, "other")):
        assert len(mine["default"]) == 0
        assert mine.names() == ["default"]
        with pytest.raises(UnknownIndex):
            mine["other"]


def test_an_index_that_could_not_be_dropped_is_still_there(indexes: Indexes, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = serve(indexes, MODEL, DIM)
    mine["default"].put(items(2))

    def fail(self: Path, target: Path) -> None:
        raise PermissionError(f"{target} cannot be made")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(PermissionError):
            mine.drop("default")
    assert len(mine["default"]) == 2


def test_everything_is_there_after_a_restart(folder: Path) -> None:
    for turn in range(2):
        indexes = Indexes(folder)
        view = serve(indexes, MODEL, DIM)
        if turn == 0:
            view.create("mine", "float32")
            view["mine"].put(items(4))
        else:
            assert view.names() == ["default", "mine"]
            assert np.array_equal(view["mine"].vectors(["2", "0"]), unit(4, DIM)[[2, 0]])
        indexes.close()


def test_a_second_process_is_refused(indexes: Indexes, folder: Path) -> None:
    code = f"from pathlib import Path; from rankone.index import Indexes; Indexes(Path({str(folder)!r}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another process is using it" in ended.stderr
    indexes.close()
    Indexes(folder).close()


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IndexProblem, match="cannot be opened"):
        Indexes(tmp_path / "file" / "indexes")


def test_a_damaged_file_is_named_and_the_others_work(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("cut", "mine"):
        make(folder / f"{name}.sqlite", Spec(MODEL, DIM))
    (folder / "diary.sqlite").write_bytes(b"a diary, not a database" * 100)
    indexes = Indexes(folder)
    serve(indexes, MODEL, DIM)["cut"].put(items(200))
    indexes.close()
    with (folder / "cut.sqlite").open("r+b") as file:
        file.truncate(file.seek(0, 2) // 2)
    indexes = Indexes(folder)
    view = serve(indexes, MODEL, DIM)
    assert view["mine"].put(items(2)) == 2
    assert view.problems().keys() == {"cut", "diary"}
    for name in ("cut", "diary"):
        with pytest.raises(IndexDamaged, match=f"{name}.sqlite"):
            view[name]
        assert view.describe(name).count is None
    assert (folder / "diary.sqlite").read_bytes().startswith(b"a diary")
    view.drop("diary")
    assert view.names() == ["cut", "default", "mine"]
    indexes.close()


def test_what_was_being_made_or_dropped_when_it_died_is_cleared_away(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in (".a.sqlite.partial", ".a.sqlite.partial-wal"):
        (folder / name).touch()
    Indexes(folder).close()
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_file_of_the_first_version_is_taken_over(folder: Path) -> None:
    """As 0.1.0's first builds wrote it: vectors and metadata in one table, numbers given by SQLite."""
    folder.mkdir(parents=True)
    vectors = unit(3, DIM)
    connection = sqlite3.connect(folder / "default.sqlite")
    connection.executescript(
        """
        CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE items (sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
                            vector BLOB NOT NULL, metadata TEXT NOT NULL);
        """
    )
    about = {"schema": "1", "dim": str(DIM), "fingerprint": MODEL}
    connection.executemany("INSERT INTO about VALUES (?, ?)", about.items())
    for number, vector in enumerate(vectors):
        row = (f"{number}", vector.astype("<f2").tobytes(), json.dumps({"n": number, "é": [None]}, ensure_ascii=False))
        connection.execute("INSERT INTO items (id, vector, metadata) VALUES (?, ?, ?)", row)
    connection.execute("DELETE FROM items WHERE id = '2'")
    connection.commit()
    connection.close()
    for _ in range(2):
        indexes = Indexes(folder)
        index = serve(indexes, MODEL, DIM)["default"]
        assert [(number, item.id, item.metadata) for number, item in index.page(10)] == [
            (1, "0", {"n": 0, "é": [None]}),
            (2, "1", {"n": 1, "é": [None]}),
        ]
        assert np.array_equal(index.vectors(["1"])[0], vectors[1].astype(np.float16).astype(np.float32))
        assert index.problem is None
        indexes.close()
    indexes = Indexes(folder)
    assert serve(indexes, MODEL, DIM)["default"].put(items(1)) == 4
    indexes.close()
