"""The compact search: what it finds against the exact one, under changes and filters, and what it keeps in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.index import Index, Item, compiled
from service.index import compact as module
from service.index.offline import measure_recall
from service.index.schema import make
from tests.service.index.conftest import SPEC
from tests.service.index.oracle import unit

DIM = 1003  # neither a multiple of 8 nor of 64


@pytest.fixture
def compact(tmp_path: Path) -> Iterator[Index]:
    make(tmp_path / "compact.sqlite", replace(SPEC, dim=DIM, kind="compact"))
    index = Index(tmp_path / "compact.sqlite")
    yield index
    index.close()


def gallery(count: int) -> np.ndarray:
    """Twenty views of each of some things."""
    things, views = unit(-(-count // 20), DIM, seed=5), unit(count, DIM, seed=6)
    drawn = np.repeat(things, 20, axis=0)[:count] + 0.8 * views
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def fill(index: Index, vectors: np.ndarray) -> None:
    index.put([Item(f"{i:05}", vector, {"even": i % 2 == 0}) for i, vector in enumerate(vectors)])


def test_what_it_answers_is_scored_exactly_and_complete(compact: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few are looked at more closely, and the right ones are among them; scores are those of the vectors themselves."""
    monkeypatch.setattr(module, "NEAR", 300)
    monkeypatch.setattr(module, "EXACT", 60)
    vectors = gallery(3000)
    fill(compact, vectors)
    kept, queries = vectors.astype(np.float16).astype(np.float64), vectors[::100] + 0.3 * unit(30, DIM, seed=7)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found = compact.search(np.asarray(queries, np.float32), 10)
    wanted = [{f"{i:05}" for i in np.argsort(-scores)[:10]} for scores in queries @ kept.T]
    assert np.mean([len(ids & {hit.id for hit in hits}) / 10 for ids, hits in zip(wanted, found, strict=True)]) >= 0.97
    for query, hits in zip(queries, found, strict=True):
        assert [hit.score for hit in hits] == pytest.approx([kept[int(hit.id)] @ query for hit in hits], abs=1e-5)


def test_it_follows_changes_and_filters_first(compact: Index) -> None:
    vectors = gallery(1500)
    fill(compact, vectors)
    compact.delete([f"{i:05}" for i in range(0, 1500, 3)])
    compact.put([Item("00001", vectors[1490], {"even": True})])
    (hits,) = compact.search(vectors[1490][None], 2000)
    assert {hit.id for hit in hits} == {f"{i:05}" for i in range(1500) if i % 3}
    assert [hit.id for hit in hits[:2]] == ["00001", "01490"]
    (hits,) = compact.search(vectors[1490][None], 2000, where=compiled({"even": False}))
    assert {hit.id for hit in hits} == {f"{i:05}" for i in range(1500) if i % 3 and i % 2 and i != 1}


def test_memory_is_a_fifteenth_of_the_exact_ones(compact: Index) -> None:
    fill(compact, gallery(2048))
    codes = compact._searcher._gallery
    assert isinstance(codes, module.Codes)
    held = (codes._bits.nbytes + codes._factors.nbytes) / 2048
    assert held < 4 * DIM / 15


def test_recall_is_measured_and_kept(compact: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so where it is bad: with three vectors read, at most two of ten are found beside the query itself."""
    fill(compact, gallery(1500))
    compact.close()
    assert compact.recall is None
    assert measure_recall(compact.path, 50, 10, lambda _: None) >= 0.97
    index = Index(compact.path)
    assert index.recall is not None
    assert index.recall >= 0.97
    index.close()
    monkeypatch.setattr(module.Codes, "_estimates", lambda self, query, rows: np.zeros(len(rows), np.float32))
    monkeypatch.setattr(module, "EXACT", 11)
    monkeypatch.setattr(module, "_EXACT_EACH", 1)
    monkeypatch.setattr("faiss.knn_hamming", lambda asking, bits, k: (None, np.tile(np.arange(k), (len(asking), 1))))
    assert measure_recall(compact.path, 50, 10, lambda _: None) < 0.5
