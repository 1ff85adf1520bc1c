"""The compact search: what it finds against the exact one, under changes and filters, and what it keeps in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from rankone.index import Index, Item, Query, SearchOptions, compiled, path_of
from rankone.index import compact as module
from rankone.index.compact import CompactGallery, Scorer, _least
from rankone.index.database import create_file
from rankone.index.gallery import RowTable
from rankone.index.offline import measure_recall
from tests.index.conftest import SPEC
from tests.index.oracle import unit

DIM = 1003  # neither a multiple of 8 nor of 64


@pytest.fixture
def compact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An empty index whose codes have a rest beside their first bits."""
    monkeypatch.setattr(module, "_FIRST_BYTES", 48)
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
    _, estimates, errors = codes._estimates(query, np.arange(2000))
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
    (hits,) = compact.submit_search(query).result()
    assert hits[0].id == "00000"
    assert [hit.metadata["part"] for hit in hits] == [0, 1]


def test_memory_is_a_fifteenth_of_the_exact_ones(compact: Index) -> None:
    codes = filled(compact, gallery(2048))
    held = sum(part.nbytes for part in (codes._first, codes._rest, codes._factors)) / 2048
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
    monkeypatch.setattr(module, "_least", lambda *_: np.arange(12))
    assert measure_recall(compact.path, 50, 10, lambda _: None) < 0.5


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("chosen", [slice(None), slice(100, 900), slice(None, None, 2), slice(997, 998)])
def test_batches_are_answered_like_single_queries_in_whatever_tiles_and_by_however_many_threads(
    compact: Index, monkeypatch: pytest.MonkeyPatch, num_threads: int, chosen: slice
) -> None:
    vectors = gallery(1000)
    codes, rows = filled(compact, vectors), np.arange(1000)[chosen]
    alone = [codes.nearest(query[None], 10, rows)[0] for query in vectors[:40]]
    monkeypatch.setattr(module, "_PAIRS", 7 * len(rows))  # seven queries together
    monkeypatch.setattr(module, "_SHARED_PAIRS", 0)
    monkeypatch.setattr(module, "_TILE_PAIRS", 100)
    monkeypatch.setattr(module, "_LEAST_HEIGHT", 13)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num_threads)
    try:
        together = codes.nearest(vectors[:40], 10, rows)
        assert faiss.omp_get_max_threads() == num_threads
    finally:
        faiss.omp_set_num_threads(before)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize("first_bytes", [8, 48, 256])
def test_distances_are_those_of_the_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_bytes: int) -> None:
    """Those of the first bits and of the rest, which may be none, of codes that lie side by side and of others."""
    monkeypatch.setattr(module, "_FIRST_BYTES", first_bytes)
    monkeypatch.setattr(module, "_LEAST_HEIGHT", 13)
    monkeypatch.setattr(module, "_TILE_PAIRS", 1)
    vectors, queries, rows = gallery(300), gallery(5), np.array([*range(100), *range(150, 300, 7)])
    codes = CompactGallery(DIM, RowTable(), lambda _: [], np.dtype("<f2"))
    codes.write(0, vectors.astype(np.float16))
    differ = (queries > 0)[:, None] != (vectors[rows].astype(np.float16) > 0)
    np.testing.assert_array_equal(
        codes._first_distances(queries, rows, map), differ[:, :, : 8 * first_bytes].sum(axis=2)
    )
    _, rest = codes._packed(queries > 0)
    np.testing.assert_array_equal(codes._apart(rest, codes._rest, rows), differ[:, :, 8 * first_bytes :].sum(axis=2))


def test_the_least_distances_are_chosen_and_the_first_of_equals() -> None:
    """Up to five binomial deviations above the k-th least, or as many as are allowed."""
    draw = np.random.default_rng(0)
    distances: np.ndarray = draw.integers(100, 400, 900).astype(np.int32)
    in_order = np.argsort(distances, kind="stable")
    kth = distances[in_order[9]]
    share = (kth + 1) / (1000 + 2)
    near = np.flatnonzero(distances <= kth + 5 * np.sqrt(1000 * share * (1 - share)))
    assert 50 < len(near) < 400
    np.testing.assert_array_equal(_least(distances, 10, 1000, 900), near)
    for most in (10, 11, 37, len(near) - 1):
        np.testing.assert_array_equal(_least(distances, 10, 1000, most), np.sort(in_order[:most]))
    equal = np.full(900, 7, np.int32)
    np.testing.assert_array_equal(_least(equal, 10, 1000, 30), np.arange(30))
    np.testing.assert_array_equal(_least(equal, 2000, 1000, 4000), np.arange(900))


def test_the_first_bits_hide_no_neighbour(compact: Index) -> None:
    """What a step leaves holds every true neighbour, also one whose first bits are far apart by chance."""
    vectors = gallery(3000)
    codes, rows = filled(compact, vectors), np.arange(3000)
    queries = np.asarray(vectors[::150] + 0.5 * unit(20, DIM, seed=8), np.float32)
    distances = codes._first_distances(queries, rows, map)
    for query, apart in zip(queries, distances, strict=True):
        estimated = codes._estimated(query, apart, 10, rows)
        assert set(np.argsort(-(vectors @ query))[:10].tolist()) <= set(estimated.rows.tolist())
        assert len(estimated.rows) < 1500


def test_no_more_are_read_than_allowed_and_those_are_the_likeliest(
    compact: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    things = unit(500, DIM, seed=5)
    codes = filled(compact, things[0] + 1e-3 * things)
    estimated = codes._estimates(things[0], np.arange(500))
    assert len(codes._scored(things[0], estimated, 10)[0]) > 100
    monkeypatch.setattr(module, "READ", 30)
    monkeypatch.setattr(module, "_READ_EACH", 1)
    best = np.argsort(-estimated.values, kind="stable")[:30]
    assert set(codes._scored(things[0], estimated, 10)[0].tolist()) <= set(best.tolist())


def test_fewer_are_read_where_the_nearest_are_near(compact: Index) -> None:
    """An estimate is off by less for a row that is like the query. How like is known from the k that are read first."""
    query, crowd = unit(1, DIM, seed=5)[0], unit(400, DIM, seed=6)
    vectors = query + 0.3 * crowd
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = filled(compact, vectors)
    rows, values, errors = estimated = codes._estimates(np.asarray(query, np.float32), np.arange(400))
    best = np.argsort(-values)[:10]
    beside = np.sqrt(1 - min((vectors.astype(np.float16).astype(np.float64) @ query)[best]) ** 2)
    expected = values >= values[best[-1]] - 2.5 * np.sqrt(beside) * errors
    found, scores = codes._scored(query, estimated, 10)
    assert sorted(found.tolist()) == rows[expected].tolist()
    assert scores == pytest.approx(vectors[found] @ query, abs=1e-3)
    assert len(found) < (values >= values[best[-1]] - 2.5 * errors).sum()


@pytest.mark.parametrize("dim", [1, 7, 24, 1003])
@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
def test_a_vector_is_scored_as_it_is_stored(dtype: str, dim: int) -> None:
    draw = np.random.default_rng(0)
    query: np.ndarray = draw.standard_normal(dim).astype(np.float32)
    stored: np.ndarray = draw.standard_normal((40, dim)).astype(dtype)
    score = Scorer(query, np.dtype(dtype))
    scores = [score(vector.tobytes()) for vector in stored]
    np.testing.assert_allclose(scores, stored.astype(np.float64) @ query, atol=1e-5 * dim**0.5)
    assert [score(vector.tobytes()) for vector in stored[::-1]] == scores[::-1]
    with pytest.raises(ValueError, match="smaller"):
        score(stored[0].tobytes()[:-1])
