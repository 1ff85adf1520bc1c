"""Published versions: they answer as an index in a file and a slow reference do, and nothing is stored in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankone.__main__ import run
from rankone.index import (
    AnyIndex,
    Index,
    IndexConflict,
    Item,
    Query,
    SearchOptions,
    Spec,
    UnknownIndex,
    UnknownItem,
    UnknownMap,
    compiled,
)
from rankone.index.change import Patch
from rankone.index.errors import IndexPublished, IndexUnavailable
from rankone.index.filters import path_of
from rankone.index.source import Remote, reading
from tests.index.conftest import SPEC
from tests.index.lance.conftest import Write, ids_of, items, queries, quiet
from tests.index.oracle import Oracle, unit

lance = pytest.importorskip("lance", reason="pylance, of rankone[lance], is not installed")
from rankone.index.lance import search  # noqa: E402
from rankone.index.lance.index import LanceIndexes  # noqa: E402
from rankone.index.lance.publish import publish  # noqa: E402

COUNT = 400
FILTERS: list[dict[str, Any] | None] = [
    None,
    {"even": True},
    {"i": {"$lt": 9}},
    {"$or": [{"group": "a"}, {"group": {"$contains": "a"}}]},
    {"group": 1},
    {"i": -1},
]


@pytest.fixture
def local(tmp_path: Path, write: Write) -> Iterator[Index]:
    write("local", items(COUNT), replace(SPEC, thumbnails=True))
    index = Index(tmp_path / "local.sqlite")
    yield index
    index.close()


@pytest.fixture
def indexes(tmp_path: Path, root: str, local: Index) -> Iterator[LanceIndexes]:
    publish([tmp_path / "local.parquet"], root, "mine", quiet)
    indexes = LanceIndexes(root)
    yield indexes
    indexes.close()


@pytest.fixture(params=["all that match are compared", "codes propose candidates"])
def published(indexes: LanceIndexes, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AnyIndex:
    """The second way, which otherwise only large galleries take, with enough candidates to find all."""
    if request.param == "codes propose candidates":
        monkeypatch.setattr(search, "_FEW", 0)
    monkeypatch.setattr(search, "DEPTH", COUNT - 10)
    return indexes.open("mine")


@pytest.mark.parametrize("source", FILTERS, ids=str)
def test_a_search_answers_what_a_slow_reference_does(published: AnyIndex, source: dict[str, Any] | None) -> None:
    oracle = Oracle()
    oracle.put(items(COUNT))
    where = None if source is None else compiled(source)
    for query, hits in zip(queries(), published.search(queries(), 10, -0.2, where), strict=True):
        scores = oracle.scores(query, source)
        best = sorted((-round(score, 6), item_id) for item_id, score in scores.items() if score >= -0.2)[:10]
        assert [hit.score for hit in hits] == pytest.approx([-score for score, _ in best], abs=2e-6)
        assert all(hit.score == pytest.approx(scores[hit.id], abs=2e-6) for hit in hits)
        assert len({hit.id for hit in hits}) == len(hits)


@pytest.mark.parametrize("source", FILTERS, ids=str)
@pytest.mark.parametrize("group_by", [None, "group", "none"])
def test_a_search_answers_what_an_index_in_a_file_does(
    published: AnyIndex, local: Index, source: dict[str, Any] | None, group_by: str | None
) -> None:
    """Ties are in the same order, and items that are left out are replaced by others."""
    where, field = None if source is None else compiled(source), None if group_by is None else path_of(group_by)
    exclude = frozenset(item.id for item in items(COUNT)[:40])
    options = [SearchOptions(8, 0.1 if place % 2 else -np.inf, exclude) for place in range(len(queries()))]
    expected, found = (
        index.submit_search(Query(queries(), options, where, field)).result() for index in (local, published)
    )
    assert [ids_of(hits) for hits in found] == [ids_of(hits) for hits in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in theirs], abs=1e-6)
        assert [hit.metadata for hit in ours] == [hit.metadata for hit in theirs]


def test_items_are_read_as_from_a_file(indexes: LanceIndexes, local: Index, root: str) -> None:
    published = indexes.open("mine")
    assert len(published) == len(local) == COUNT
    assert (published.backend, published.spec.kind, published.recall) == ("lance", "compact", None)
    wanted = [items(COUNT)[5].id, items(COUNT)[300].id]
    assert published.records([*wanted, "none"]) == local.records(wanted)
    assert np.array_equal(published.vectors(wanted), local.vectors(wanted))
    assert published.get(wanted[0]).thumbnail == b"\xff\xd8"
    assert published.missing(items(COUNT)) == []
    assert ids_of(published.missing([Item("new", unit(1, SPEC.dim)[0], {})])) == ["new"]
    with pytest.raises(UnknownItem, match="there is no item 'none'"):
        published.get("none")
    for where in (None, compiled({"even": True}), compiled({"i": {"$gte": 390}})):
        for after in (0, 7, 395, COUNT):
            with published.reading() as ours, local.reading() as theirs:
                assert ours.page(6, after, where) == theirs.page(6, after, where)
    with pytest.raises(UnknownMap, match="has no map"):
        published.map()


def test_a_reader_reads_what_is_in_the_file(indexes: LanceIndexes, tmp_path: Path, root: str) -> None:
    with reading(Remote(f"lance:{root}", "mine")) as (ours, spec), reading(tmp_path / "local.sqlite") as (theirs, _):
        ours.check()
        assert spec == replace(SPEC, kind="compact", thumbnails=True)
        assert list(ours.everything()) == list(theirs.everything())
        assert ours.count() == COUNT
        assert list(ours.summaries()) == list(theirs.summaries())
        assert list(ours.at([3, 17, 400])) == list(theirs.at([3, 17, 400]))


def test_nothing_is_stored(
    indexes: LanceIndexes, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published, item = indexes.open("mine"), items(10)[0]
    for attempt in (
        published.check_writable,
        lambda: published.put([item]),
        lambda: published.delete([item.id]),
        lambda: published.submit_delete(where=compiled({"even": True})).result(),
        lambda: published.submit_patch(Patch(item.id, {"i": 1}, 1000)).result(),
        lambda: indexes.create("new", SPEC),
        lambda: indexes.drop("mine"),
    ):
        with pytest.raises(IndexPublished, match="published versions, which are only read: `rankone index publish`"):
            attempt()
    assert not indexes.create("mine", published.spec)
    with pytest.raises(IndexConflict, match="there is an index 'mine' already, compact"):
        indexes.create("mine", SPEC)
    place, file = f"lance:{root}", str(tmp_path / "local.parquet")
    for command, *arguments in (
        ("import", "mine", file),
        ("map", "mine"),
        ("backup", "mine", file),
        ("restore", "x", file),
    ):
        assert run("index", [command, place, *arguments]) != 0
        assert "only read" in capsys.readouterr().err
    assert indexes.names() == ["mine"]
    assert len(indexes.open("mine")) == COUNT


def test_commands_read_published_versions(
    indexes: LanceIndexes, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"lance:{root}"
    assert run("index", ["list", place]) == 0
    assert "mine" in capsys.readouterr().out
    assert run("index", ["verify", place, "mine"]) == 0
    assert "every row is whole" in capsys.readouterr().out
    assert run("index", ["export", place, "mine", str(tmp_path / "back.parquet")]) == 0
    assert (tmp_path / "back.parquet").stat().st_size > 0
    capsys.readouterr()
    assert run("index", ["check", place, "mine", "--queries", "20"]) == 0
    printed = capsys.readouterr().out
    indexes.refresh()
    measured = indexes.open("mine")
    assert printed == f"recall@10 {measured.recall:.4f}\n"
    assert measured.published.depth is not None
    publish([tmp_path / "local.parquet", tmp_path / "back.parquet"][1:], root, "mine", quiet)
    indexes.refresh()
    assert indexes.open("mine").recall is None  # it was that of another version


def test_what_is_not_there_is_said(tmp_path: Path, root: str, indexes: LanceIndexes) -> None:
    with pytest.raises(UnknownIndex, match="there is no index 'gone'"):
        indexes.open("gone")
    assert indexes.counts() == {"mine": 0}
    indexes.acquire(SPEC.fingerprint, SPEC.dim)
    lance.write_dataset(lance.dataset(f"{root}/mine.lance").to_table(limit=3), f"{root}/early.lance")
    with pytest.raises(IndexUnavailable, match="no version of the index 'early' is published yet"):
        indexes.open("early")
    assert list(indexes.problems()) == ["early"]
    assert indexes.counts() == {"early": 0, "mine": COUNT}
    with pytest.raises(IndexConflict, match="was made with the bundle"):
        indexes.open("mine", "b" * 64)
    shutil.rmtree(f"{root}/early.lance")
    indexes.refresh()
    assert indexes.problems() == {}
    shutil.rmtree(f"{root}/mine.lance/data")
    with closing(LanceIndexes(root)) as other, pytest.raises(IndexUnavailable, match="mine cannot be read"):
        other.open("mine").search(queries(), 3)


def test_a_short_answer_is_of_all_items(indexes: LanceIndexes, local: Index) -> None:
    """More neighbours than there are items, and items that are all excluded."""
    published = indexes.open("mine")
    everything = frozenset(item.id for item in items(COUNT))
    assert {len(hits) for hits in published.search(queries(), 2 * COUNT)} == {COUNT}
    assert published.submit_search(
        Query(queries(), [SearchOptions(3, exclude=everything)] * len(queries()))
    ).result() == [[]] * len(queries())


def test_items_of_one_score_are_in_the_order_of_their_ids(root: str, write: Write) -> None:
    """And not in that of their files."""
    vector, there = unit(1, SPEC.dim)[0], {"there": True}
    files = [write(name, [Item(name, vector, there)]) for name in ("c", "a", "b")]
    publish(files, root, "ties", quiet)
    with closing(LanceIndexes(root)) as indexes:
        index = indexes.open("ties")
        for query in (vector[None], np.zeros_like(vector[None])):
            for where in (None, compiled(there)):
                assert ids_of(index.search(query, 2, where=where)[0]) == ["a", "b"]


@pytest.mark.parametrize(
    "spec", [replace(SPEC, dtype="float32"), Spec(SPEC.fingerprint, 8)], ids=["float32", "8 numbers"]
)
def test_other_vectors_are_kept_as_they_are(root: str, write: Write, spec: Spec) -> None:
    some = [Item(str(i), vector, {}) for i, vector in enumerate(unit(30, spec.dim))]
    publish([write("other", some, spec)], root, "other", quiet)
    with closing(LanceIndexes(root)) as indexes:
        found = indexes.open("other").get("7").vector
    assert np.array_equal(found, np.asarray(some[7].vector).astype(spec.stored))
