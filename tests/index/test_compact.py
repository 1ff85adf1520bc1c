"""The compact search: what it finds against the exact one, under changes and filters, and what it keeps in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rankone.index import Index, Item, Query, SearchOptions, compiled, path_of
from rankone.index import compact as module
from rankone.index.compact import CompactGallery, inner_products
from rankone.index.database import create_file
from rankone.index.offline import measure_recall
from tests.index.conftest import SPEC
from tests.index.oracle import unit

DIM = 1003  # neither a multiple of 8 nor of 64


@pytest.fixture
def compact(tmp_path: Path) -> Iterator[Index]:
    create_file(tmp_path / "compact.sqlite", replace(SPEC, dim=DIM, kind="compact"))
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


def filled(index: Index, vectors: np.ndarray) -> CompactGallery:
    """The codes of these vectors, once the search thread has them."""
    fill(index, vectors)
    index.search(np.asarray(vectors[:1], np.float32), 1)
    codes = index._searching._gallery
    assert isinstance(codes, CompactGallery)
    return codes


def test_what_it_answers_is_scored_exactly_and_complete(compact: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few are looked at more closely, and the right ones are among them; scores are those of the vectors themselves."""
    monkeypatch.setattr(module, "NEAR", 300)
    vectors = gallery(3000)
    fill(compact, vectors)
    kept, queries = vectors.astype(np.float16).astype(np.float64), vectors[::100] + 0.3 * unit(30, DIM, seed=7)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found = compact.search(np.asarray(queries, np.float32), 10)
    wanted = [{f"{i:05}" for i in np.argsort(-scores)[:10]} for scores in queries @ kept.T]
    assert np.mean([len(ids & {hit.id for hit in hits}) / 10 for ids, hits in zip(wanted, found, strict=True)]) >= 0.97
    for query, hits in zip(queries, found, strict=True):
        assert [hit.score for hit in hits] == pytest.approx([kept[int(hit.id)] @ query for hit in hits], abs=1e-5)


def test_as_many_are_read_as_could_be_nearest(compact: Index) -> None:
    """Of a crowd that an estimate cannot tell apart all, whose difference is a thousandth of its error; of others few."""
    things = unit(2000, DIM, seed=5)
    crowd = things[0] + 1e-3 * unit(400, DIM, seed=6)
    codes = filled(compact, np.concatenate([crowd, things[1:]]))
    (found,) = codes.nearest(things[:1], 10, np.arange(2399))
    assert set(range(400)) <= set(found.rows.tolist())
    assert len(found.rows) < 500
    (found,) = codes.nearest(things[-1:], 1, np.arange(2399))
    assert found.rows.tolist() == [2398]


def test_estimates_are_off_by_what_they_are_said_to_be(compact: Index) -> None:
    """Against inner products in float64: no bias beyond chance, and the standard deviation of independent directions."""
    vectors = gallery(2000)
    codes = filled(compact, vectors)
    query = vectors[3] + 0.3 * unit(1, DIM, seed=9)[0]
    query /= np.linalg.norm(query)
    estimates, errors = codes._estimates(query, np.arange(2000))
    signs = np.where(vectors.astype(np.float16) > 0, 1.0, -1.0)
    lengths = np.abs(vectors.astype(np.float64)).sum(axis=1)
    assert ((estimates - signs @ query / lengths) / errors).std() < 0.1  # the query's six bits
    off = (estimates - vectors.astype(np.float64) @ query) / errors
    assert abs(off.mean()) < 0.1
    assert 0.9 < off.std() < 1.1


def test_many_items_of_no_length_hide_nobody(compact: Index) -> None:
    """As of black images, whose inner product with everything is zero."""
    vectors = gallery(500)
    fill(compact, vectors)
    compact.put([Item(f"black {i}", np.zeros(DIM, np.float32)) for i in range(60)])
    for query in (vectors[7], -vectors[7]):
        (hits,) = compact.search(np.asarray(query)[None], 10)
        wanted = np.sort(np.append(vectors.astype(np.float16).astype(np.float64) @ query, np.zeros(60)))[::-1][:10]
        assert [hit.score for hit in hits] == pytest.approx(wanted, abs=1e-5)


def test_a_query_is_answered_alike_alone_and_beside_one_that_has_more_to_read(compact: Index) -> None:
    things = unit(600, DIM, seed=5)
    crowd = things[0] + 1e-3 * unit(300, DIM, seed=6)
    fill(compact, np.concatenate([crowd, things[1:]]))
    queries = np.stack([things[0], things[-1]])
    together = compact.search(queries, 5)
    assert together == [compact.search(query[None], 5)[0] for query in queries]
    assert [len({hit.id for hit in hits}) for hits in together] == [5, 5]


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


def test_one_of_each_group_is_found_even_where_the_nearest_share_one(compact: Index) -> None:
    vectors = gallery(1500)
    compact.put([Item(f"{i:05}", vector, {"part": int(i >= 1480)}) for i, vector in enumerate(vectors)])
    query = Query(vectors[:1], [SearchOptions(2)], group_by=path_of("part"))
    (hits,) = compact.ask(query).result()
    assert hits[0].id == "00000"
    assert [hit.metadata["part"] for hit in hits] == [0, 1]


def test_memory_is_a_fifteenth_of_the_exact_ones(compact: Index) -> None:
    codes = filled(compact, gallery(2048))
    held = (codes._bits.nbytes + codes._factors.nbytes) / 2048
    assert held < 4 * DIM / 15


def test_recall_is_measured_and_kept(compact: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so where it is bad: with twelve codes looked at, whichever come first, few of ten are found."""
    fill(compact, gallery(1500))
    compact.close()
    assert compact.recall is None
    assert measure_recall(compact.path, 50, 10, lambda _: None) >= 0.97
    index = Index(compact.path)
    assert index.recall is not None
    assert index.recall >= 0.97
    index.close()
    monkeypatch.setattr(module, "NEAR", 12)
    monkeypatch.setattr(module, "_NEAR_EACH", 0)
    monkeypatch.setattr("faiss.knn_hamming", lambda codes, one, k: (np.arange(len(codes))[:, None], None))
    assert measure_recall(compact.path, 50, 10, lambda _: None) < 0.5


@pytest.mark.parametrize("dim", [1, 7, 24, 1003])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_inner_products_are_those_of_the_rows_whoever_else_is_there(dtype: type, dim: int) -> None:
    draw = np.random.default_rng(0)
    query: np.ndarray = draw.standard_normal(dim).astype(np.float32)
    stored: np.ndarray = draw.standard_normal((40, dim)).astype(dtype)
    scores = inner_products(query, stored)
    np.testing.assert_allclose(scores, stored.astype(np.float64) @ query, atol=1e-5 * dim**0.5)
    order = draw.permutation(40)[:17]
    np.testing.assert_array_equal(inner_products(query, stored[order]), scores[order])
    assert inner_products(query, stored[:0]).shape == (0,)
