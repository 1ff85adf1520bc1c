from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from rankone.index import Index, IndexConflict, IndexDamaged, IndexProblem, Item, UnknownItem
from rankone.index.database import open_reader, open_writer
from tests.index.conftest import DIM
from tests.index.oracle import unit


def vectors(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return unit(count, DIM, seed)


def items(count: int, start: int = 0) -> list[Item]:
    return [Item(f"{start + i}", vector, {"i": start + i}) for i, vector in enumerate(vectors(count, start))]


def test_search_is_exact(index: Index) -> None:
    """Against NumPy over the vectors as they are kept, float16; also where BLAS takes over, from 13 queries on."""
    stored = items(300)
    index.put(stored)
    matrix = np.stack([item.vector for item in stored]).astype(np.float16).astype(np.float64)
    for count in (1, 12, 13, 40):
        queries = vectors(count, seed=7)
        expected = queries.astype(np.float64) @ matrix.T
        for hits, scores in zip(index.search(queries, 10), expected, strict=True):
            assert [hit.id for hit in hits] == [str(i) for i in np.argsort(-scores)[:10]]
            assert [hit.score for hit in hits] == pytest.approx(np.sort(scores)[::-1][:10], abs=1e-5)
            assert [hit.metadata for hit in hits] == [{"i": int(hit.id)} for hit in hits]


def test_equal_scores_are_ordered_by_id_and_lie_within_1(index: Index) -> None:
    vector = vectors(1)[0]
    index.put([Item(name, vector) for name in "cab"])
    (hits,) = index.search(vector[None], 5)
    assert [hit.id for hit in hits] == ["a", "b", "c"]
    assert all(-1 <= hit.score <= 1 for hit in hits)
    (opposite,) = index.search(-vector[None], 5)
    assert all(-1 <= hit.score <= 1 for hit in opposite)


def test_a_sequence_number_is_never_used_again(path: Path) -> None:
    """Nor after the last item was deleted, nor after a restart; a deletion of nothing is no change."""
    index = Index(path)
    assert index.put(items(3)) == 3
    assert index.delete(["2"]) == 1
    assert index.delete(["2"]) == 0
    index.close()
    index = Index(path)
    assert index.put(items(2, start=9)) == 6
    assert [number for number, _ in index.page(10)] == [1, 2, 5, 6]
    index.close()


def test_settings_are_durable_and_the_file_is_whole_when_closed(index: Index, path: Path) -> None:
    """The settings as SQLite reads them back from the very connection that writes."""
    index.put(items(2))
    connection = index._store._connection
    settings = {"journal_mode": "wal", "synchronous": 2, "page_size": 4096, "wal_autocheckpoint": 0}
    for name, value in settings.items():
        assert connection.execute(f"PRAGMA {name}").fetchone() == (value,), name
    index.close()
    assert not path.with_name(f"{path.name}-wal").exists()
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM items").fetchone() == (2,)
    other.close()


def test_a_setting_that_sqlite_does_not_take_stops_the_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankone.index.database.DURABLE", {"journal_mode": "wal", "page_size": 8192})
    with pytest.raises(IndexProblem, match="SQLite runs with page_size = 4096 and not 8192"):
        open_writer(path)


def test_a_reader_cannot_write(index: Index, path: Path) -> None:
    reader = open_reader(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM items")
    reader.close()


def test_a_put_that_fails_half_way_is_taken_back(index: Index) -> None:
    """The second row cannot be bound, when the first is already in the transaction."""
    with pytest.raises(UnicodeEncodeError):
        index.put([*items(1), Item("\ud800", vectors(1)[0])])
    assert (len(index), index.page(10)) == (0, [])
    assert index.put(items(1)) == 1


def test_the_same_id_twice_in_a_request_is_refused(index: Index) -> None:
    with pytest.raises(IndexConflict, match="the id '0' stands 2 times"):
        index.put([*items(2), *items(1)])
    assert len(index) == 0


def test_unknown_items_are_named(index: Index) -> None:
    index.put(items(1))
    with pytest.raises(UnknownItem, match="there is no item 'x'"):
        index.vectors(["0", "x"])
    with pytest.raises(UnknownItem, match="there is no item 'x'"):
        index.get("x")


def test_vectors_come_back_in_the_order_that_was_asked_for(index: Index) -> None:
    stored = items(700)
    index.put(stored)
    ids = [str(i) for i in range(699, -1, -1)]
    assert np.abs(index.vectors(ids) - np.stack([item.vector for item in stored])[::-1]).max() < 1e-3


def test_a_file_that_is_no_index_is_refused_and_kept(path: Path) -> None:
    path.write_bytes(b"a diary, not a database" * 100)
    with pytest.raises(IndexDamaged, match="cannot be used as an index: file is not a database"):
        Index(path)
    assert path.read_bytes().startswith(b"a diary")


@pytest.mark.parametrize("key", ["kind", "dtype"])
def test_an_unknown_kind_or_type_is_refused_and_named(path: Path, key: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE about SET value = 'newer' WHERE key = ?", (key,))
    connection.close()
    with pytest.raises(IndexProblem, match=f"has {key} 'newer', and this version of rankone knows only"):
        Index(path)


@pytest.mark.parametrize("schema", [1, 99])
def test_another_schema_is_refused_and_named(path: Path, schema: int) -> None:
    """A file of schema 1 had one table, whose vectors were beside the metadata."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE about SET value = ? WHERE key = 'schema'", (str(schema),))
        if schema == 1:
            connection.execute("DELETE FROM about WHERE key IN ('kind', 'dtype', 'thumbnails', 'sequence')")
    connection.close()
    with pytest.raises(IndexProblem, match=f"has schema {schema}, and this version of rankone reads schema 2 only"):
        Index(path)
