"""Indexes of a folder: several, of several models, made, dropped, damaged and migrated."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.index import IndexConflict, IndexDamaged, Indexes, IndexProblem, Item, Spec, UnknownIndex
from service.index.schema import make
from tests.service.index.conftest import DIM, MODEL
from tests.service.index.oracle import unit

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
    view = indexes.serving(MODEL, DIM)
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
        indexes.serving(MODEL, DIM).create(name)


def test_every_model_sees_its_own_indexes(indexes: Indexes) -> None:
    """Two views at once, as when one model follows another; the indexes of both stay open."""
    mine = indexes.serving(MODEL, DIM)
    mine["default"].put(items(2))
    theirs = indexes.serving(OTHER, DIM)
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


def test_everything_is_there_after_a_restart(folder: Path) -> None:
    for turn in range(2):
        indexes = Indexes(folder)
        view = indexes.serving(MODEL, DIM)
        if turn == 0:
            view.create("mine", "float32")
            view["mine"].put(items(4))
        else:
            assert view.names() == ["default", "mine"]
            assert np.array_equal(view["mine"].vectors(["2", "0"]), unit(4, DIM)[[2, 0]])
        indexes.close()


def test_a_second_process_is_refused(indexes: Indexes, folder: Path) -> None:
    code = f"from pathlib import Path; from service.index import Indexes; Indexes(Path({str(folder)!r}))"
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
    indexes.serving(MODEL, DIM)["cut"].put(items(200))
    indexes.close()
    with (folder / "cut.sqlite").open("r+b") as file:
        file.truncate(file.seek(0, 2) // 2)
    indexes = Indexes(folder)
    view = indexes.serving(MODEL, DIM)
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
        index = indexes.serving(MODEL, DIM)["default"]
        assert [(number, item.id, item.metadata) for number, item in index.page(10)] == [
            (1, "0", {"n": 0, "é": [None]}),
            (2, "1", {"n": 1, "é": [None]}),
        ]
        assert np.array_equal(index.vectors(["1"])[0], vectors[1].astype(np.float16).astype(np.float32))
        assert index.problem is None
        indexes.close()
    indexes = Indexes(folder)
    assert indexes.serving(MODEL, DIM)["default"].put(items(1)) == 4
    indexes.close()
