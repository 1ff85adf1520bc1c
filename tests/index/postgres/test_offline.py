"""Commands on indexes in PostgreSQL: what they read is what files hold, and what they cannot do they say how to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg
import pytest

from rankone.__main__ import run
from rankone.index import Index, Item, Spec
from rankone.index.database import create_file
from rankone.index.postgres import PostgresIndexes
from rankone.index.source import Remote, reading
from tests.index.conftest import MODEL
from tests.index.oracle import unit

DIM = 2100
SPEC = Spec(MODEL, DIM, kind="compact", thumbnails=True)


def items(count: int) -> list[Item]:
    """Some with a thumbnail, two of the same file."""
    return [
        Item(
            f"{i}/ü",
            vector,
            {"i": i, "f": 1.50, "b": {"z": 1, "a": None}},
            f"{max(i, 1)}",
            b"\xff\xd8" if i % 2 else None,
        )
        for i, vector in enumerate(unit(count, DIM))
    ]


@pytest.fixture
def indexes(database: str) -> Iterator[PostgresIndexes]:
    indexes = PostgresIndexes(database, 60)
    indexes.create("mine", SPEC)
    indexes.open("mine").put(items(40))
    yield indexes
    indexes.close()


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_an_index_goes_to_a_file_and_back_the_same(
    database: str, indexes: PostgresIndexes, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """From PostgreSQL to a file, to an index in a folder, to a file, and back to PostgreSQL under another name."""
    folder = tmp_path / "indexes"
    folder.mkdir()
    create_file(folder / "copy.sqlite", SPEC)
    for place, name, file in ((database, "mine", "first"), (str(folder), "copy", "second")):
        assert run("index", ["export", place, name, str(tmp_path / f"{file}.{form}")]) == 0
        target = str(folder) if place == database else database
        assert run("index", ["import", target, "copy", str(tmp_path / f"{file}.{form}")]) == 0
    assert capsys.readouterr().out.count("40 items added") == 2
    assert run("index", ["import", database, "copy", str(tmp_path / f"second.{form}")]) == 0
    assert "0 items added" in capsys.readouterr().out
    found = []
    for source in (Remote(database, "mine"), folder / "copy.sqlite", Remote(database, "copy")):
        with reading(source) as (reader, _):
            found.append([record for _, record in reader.everything()])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 40


def test_duplicates_and_the_map_are_those_of_files(
    database: str, indexes: PostgresIndexes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_file(tmp_path / "mine.sqlite", SPEC)
    with closing(Index(tmp_path / "mine.sqlite")) as index:
        index.put(items(40))
    printed = []
    for place in (database, str(tmp_path)):
        assert run("index", ["duplicates", place, "mine", "--min-score", "0.03"]) == 0
        assert run("index", ["map", place, "mine"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert '{"same":["0/ü","1/ü"]}' in printed[0]
    with closing(Index(tmp_path / "mine.sqlite")) as index:
        there, here = index.map("i"), indexes.open("mine").map("i")
    assert (here.values, here.is_current) == (there.values, True)
    np.testing.assert_allclose([here.map.x, here.map.y], [there.map.x, there.map.y], atol=1e-4)
    indexes.open("mine").delete(["3/ü"])
    assert not indexes.open("mine").map().is_current


def test_verify_names_damaged_rows_and_a_wrong_count(
    database: str, indexes: PostgresIndexes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("index", ["verify", database, "mine"]) == 0
    assert "every row is whole" in capsys.readouterr().out
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE rankone.items_1 SET sha256 = 'x' WHERE id = '7/ü'")
        with pytest.raises(SystemExit) as ended:
            run("index", ["verify", database, "mine"])
        assert (ended.value.code, "damaged: 7/ü" in capsys.readouterr().out) == (1, True)
        connection.execute("DELETE FROM rankone.items_1 WHERE id = '8/ü'")
    assert run("index", ["verify", database, "mine"]) == 2
    assert "counts 40 items and holds 39" in capsys.readouterr().err


def test_check_measures_recall_and_keeps_how_deep_to_look(
    database: str, indexes: PostgresIndexes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (indexes.open("mine").recall, indexes.open("mine")._entry.depth) == (None, None)
    assert run("index", ["check", database, "mine", "--queries", "8"]) == 0
    assert capsys.readouterr().out == "recall@10 1.0000\n"
    assert (indexes.open("mine").recall, indexes.open("mine")._entry.depth) == (1.0, 100)


def test_what_postgres_does_itself_is_said(
    database: str, indexes: PostgresIndexes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "file")
    for arguments, words in (
        (["backup", database, "mine", out], f"pg_dump --format=custom --schema=rankone --file={out} URL"),
        (["restore", database, "mine", out], f"pg_restore --dbname=URL {out}"),
        (["accept", database, "mine"], "reports its own losses"),
        (["verify", database, "other"], "there is no index 'other'"),
        (["list", "postgresql://127.0.0.1:1/x"], "cannot be reached"),
    ):
        assert run("index", arguments) == 2, arguments
        assert words in " ".join(capsys.readouterr().err.split())
    assert run("index", ["list", database]) == 0
    assert "mine" in (printed := capsys.readouterr().out)
    assert "compact" in printed


def test_without_its_libraries_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("rankone.index.postgres", "psycopg"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert run("index", ["list", "postgresql:///x"]) == 2
    assert "install rankone[postgres]" in capsys.readouterr().err
