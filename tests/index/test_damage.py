"""Bits that flip and files that end early: found, named, and nobody else's matter."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from rankone.index import Index, IndexDamaged, Indexes, IndexProblem, Item, Spec
from rankone.index.backup import back_up
from rankone.index.source import damaged_rows
from tests.index.conftest import DIM, MODEL
from tests.index.oracle import unit

PAGE = 4096
FLIPS = 100


def made(name: str, number: int) -> Item:
    vector = unit(1, DIM, number)[0]
    return Item(
        name,
        vector,
        {"n": number, "note": "n" * (number % 50)},
        f"{number:064x}",
        b"jpeg %d;" % number * (number % 40 + 1),
    )


ITEMS = {f"id-{number}": made(f"id-{number}", number) for number in range(150)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of an index in which items were also deleted and replaced."""
    folder = tmp_path_factory.mktemp("whole")
    indexes = Indexes(folder)
    indexes.create("default", Spec(MODEL, DIM, thumbnails=True))
    index = indexes.open("default")
    index.put([*ITEMS.values(), made("gone", 1000)])
    index.delete(["gone"])
    index.put([ITEMS["id-7"]])
    indexes.close()
    return (folder / "default.sqlite").read_bytes()


def flipped(data: bytes, draw: random.Random) -> bytes:
    """One bit anywhere, one in three in the head of a page, where a small change does most."""
    changed = bytearray(data)
    at = draw.randrange(len(data))
    if draw.random() < 1 / 3:
        at = at // PAGE * PAGE + draw.randrange(16)
    changed[at] ^= 1 << draw.randrange(8)
    return bytes(changed)


def outcome(index: Index) -> str:
    """What became of an index that opens: every item is as it was sent, or named."""
    found = {item.id: item for _, item in index.page(1000)}
    problem = index.problem or ""
    named = ITEMS.keys() - found.keys()
    assert len(index) == len(found)
    assert {hit.id for hit in index.search(unit(1, DIM), 1000)[0]} == found.keys()
    for item_id, item in found.items():
        sent = ITEMS[item_id]
        assert item.vector.tobytes() == sent.vector.astype("<f2").tobytes()
        assert (item.metadata, item.sha256, item.thumbnail) == (sent.metadata, sent.sha256, sent.thumbnail)
        assert index.get(item_id).metadata == sent.metadata
    for item_id in named:
        assert item_id in problem
        with pytest.raises(IndexDamaged, match=item_id):
            index.get(item_id)
    assert bool(named) == bool(problem)
    return "an item is named" if named else "nothing that is read"


def test_a_flipped_bit_never_changes_or_hides_an_item_silently(whole: bytes, tmp_path: Path) -> None:
    """The index beside it takes no harm, and `verify` says the same."""
    draw, outcomes = random.Random(0), Counter[str]()
    for number in range(FLIPS):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "default.sqlite"
        path.write_bytes(flipped(whole, draw))
        (folder / "other.sqlite").write_bytes(whole)
        indexes = Indexes(folder)
        assert len(indexes.open("other")) == len(ITEMS)
        try:
            index = indexes.open("default")
        except IndexProblem:
            outcomes["the index is named"] += 1
            assert indexes.problems().keys() == {"default"}
            indexes.close()
            continue
        outcomes[outcome(index)] += 1
        assert index.put([made("new", 2000)])
        named = ITEMS.keys() - {item.id for _, item in index.page(1000)}
        indexes.close()
        assert damaged_rows(path, lambda _: None) == sorted(named)
    assert min(outcomes[name] for name in ("the index is named", "an item is named", "nothing that is read")) > 10


@pytest.mark.parametrize("table", ["items", "vectors", "thumbnails"])
def test_a_damaged_item_is_named_and_can_be_added_again(whole: bytes, tmp_path: Path, table: str) -> None:
    path, sent = tmp_path / "default.sqlite", ITEMS["id-42"]
    assert sent.thumbnail is not None
    parts = {"items": b'"n":42', "vectors": sent.vector.astype("<f2").tobytes(), "thumbnails": sent.thumbnail}
    part = parts[table]
    at = whole.rindex(part)
    assert whole.count(part) == 1
    path.write_bytes(whole[: at + 4] + bytes([whole[at + 4] ^ 1]) + whole[at + 5 :])
    assert damaged_rows(path, lambda _: None) == ["id-42"]
    index = Index(path)
    assert index.problem == "1 items are damaged on disk and left out: id-42. Add them again, or delete them"
    assert len(index) == len(ITEMS) - 1
    index.put([sent])
    assert outcome(index) == "nothing that is read"
    index.close()


@pytest.mark.parametrize("part", [0.95, 0.5, 0.1, 0.0])
def test_a_file_that_ends_early_is_named_and_the_others_go_on(whole: bytes, tmp_path: Path, part: float) -> None:
    (tmp_path / "default.sqlite").write_bytes(whole[: int(len(whole) * part)])
    (tmp_path / "other.sqlite").write_bytes(whole)
    indexes = Indexes(tmp_path)
    with pytest.raises(IndexProblem, match=r"default\.sqlite"):
        indexes.open("default")
    assert outcome(indexes.open("other")) == "nothing that is read"
    assert "default.sqlite" in indexes.problems()["default"]
    indexes.close()


def test_a_file_that_lost_less_than_a_page_has_a_damaged_item(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "default.sqlite"
    path.write_bytes(whole[:-100])
    index = Index(path)
    assert outcome(index) == "an item is named"
    index.close()


def test_a_counter_that_has_gone_back_is_found(whole: bytes, tmp_path: Path) -> None:
    """A number would be given twice."""
    path = tmp_path / "default.sqlite"
    path.write_bytes(whole)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE about SET value = '100' WHERE key = 'sequence'")
    with pytest.raises(IndexDamaged, match="are not those it counts"):
        Index(path)


@pytest.mark.parametrize(
    "change", ["DELETE FROM about", "UPDATE about SET value = '1.5'", "UPDATE about SET value = ''"]
)
def test_a_file_that_does_not_tell_its_state_is_named(whole: bytes, tmp_path: Path, change: str) -> None:
    """And not copied as if it were whole."""
    path = tmp_path / "default.sqlite"
    path.write_bytes(whole)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"{change} WHERE key = 'sequence'")
    indexes = Indexes(tmp_path)
    with pytest.raises(IndexProblem, match=r"default\.sqlite"):
        indexes.open("default")
    assert indexes.problems().keys() == {"default"}
    indexes.close()
    with pytest.raises(IndexDamaged, match=r"restore it from a backup"):
        back_up(path, tmp_path / "copy", lambda *_: None)


def test_a_value_that_has_become_of_another_type_is_damage(whole: bytes, tmp_path: Path) -> None:
    """Its bytes are the same, and so is its checksum."""
    path = tmp_path / "default.sqlite"
    path.write_bytes(whole)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE items SET sha256 = CAST(sha256 AS BLOB) WHERE id = 'id-3'")
    assert damaged_rows(path, lambda _: None) == ["id-3"]


def test_a_damaged_definition_of_a_table_does_not_empty_the_index(whole: bytes, tmp_path: Path) -> None:
    """The file is in order for SQLite, and its rows have no numbers any more."""
    path = tmp_path / "default.sqlite"
    path.write_bytes(whole.replace(b"sequence INTEGER PRIMARY KEY,\n    id", b"sequence INTEGER0PRIMARY KEY,\n    id"))
    with pytest.raises(IndexDamaged, match="are not those it counts"):
        Index(path)
