"""The map of an index: its numbers against float64, its file, and what it says of an index that has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rankone.index import Index, Indexes, IndexProblem, InvalidFilter, Item, Spec, UnknownMap, mapmaking
from rankone.index.backup import back_up
from rankone.index.database import create_file, map_file
from rankone.index.mapmaking import make_map, principal_components
from tests.index.conftest import DIM, MODEL, some_items


def reference(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) and shares (2,) by a full singular value decomposition in float64, with the sign that is promised."""
    rows = vectors.astype(np.float64) - vectors.astype(np.float64).mean(0)
    _, values, axes = np.linalg.svd(rows, full_matrices=False)
    axes = axes[:2]
    axes *= np.sign([[axis[np.abs(axis).argmax()]] for axis in axes])
    return rows @ axes.T, (values**2 / (values**2).sum())[:2]


@pytest.mark.parametrize(
    ("count", "dim", "dtype"),
    [(400, 300, "<f4"), (60, 10_000, "<f2"), (3, 40, "<f4"), (500, 20, "<f2"), (9, 2, "<f4"), (300, 33, "<f4")],
)
def test_the_points_are_the_principal_components(count: int, dim: int, dtype: str) -> None:
    spread = np.geomspace(1, 0.05, dim)
    vectors = np.random.default_rng(3).standard_normal((count, dim)) * spread + 0.3
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(dtype)
    found, found_shares = principal_components(np.array_split(vectors, 3))
    points, shares = reference(vectors)
    np.testing.assert_allclose(found, points, atol=1e-5 * np.abs(points).max())
    np.testing.assert_allclose(found_shares, shares, atol=1e-9)


def test_vectors_without_a_plane_have_a_map_too() -> None:
    for vectors in (np.ones((4, 6)), np.ones((1, 6)), np.zeros((2, 3))):
        found, found_shares = principal_components([vectors])
        assert (found.tolist(), list(found_shares)) == ([[0, 0]] * len(vectors), [0, 0])
    line, line_shares = principal_components([np.array([[0.0], [1.0], [5.0]])])
    np.testing.assert_allclose(line, [[-2, 0], [-1, 0], [3, 0]], atol=1e-12)
    assert list(line_shares) == [1, 0]
    with pytest.raises(ValueError, match="not finite"):
        principal_components([np.array([[np.nan, 1.0]])])


def test_a_map_holds_every_item_and_the_fields_to_colour_it_by(path: Path, index: Index) -> None:
    items = some_items(40)
    for item in items:
        item.metadata.update({"a.b": 1, "list": [1], "none": None, "$x": True} if int(item.id) % 2 else {"`": "c"})
    index.put(items)
    told: list[int] = []
    make_map(path, told.append)
    assert sum(told) == 40
    view = index.map("i")
    points, shares = reference(np.stack([item.vector for item in items]).astype(np.float16))
    assert view.map.ids == [item.id for item in items]
    np.testing.assert_allclose(np.transpose([view.map.x, view.map.y]), points, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(view.map.shares, shares, atol=1e-6)
    assert view.map.fields == ["i", "`$x`", "````", "`a.b`"]
    assert (view.is_current, view.values) == (True, [str(i) for i in range(40)])
    assert view.map.count == 40
    assert index.map("`a.b`").values == [None, "1"] * 20
    assert index.map("none").values == [None, "null"] * 20
    assert index.map("list").values == index.map("nowhere").values == [None] * 40
    assert index.map().values is None
    with pytest.raises(InvalidFilter):
        index.map('a"b')


def test_of_many_items_the_same_ones_are_drawn(path: Path, index: Index) -> None:
    index.put(some_items(60))
    first, again = (make_map(path, lambda _: None, most=25) for _ in range(2))
    assert first == again
    assert (first.count, len(first.ids), len(set(first.ids))) == (60, 25, 25)
    assert first.ids != [str(i) for i in range(25)]
    assert mapmaking.MOST == 20_000


def test_a_map_says_when_it_is_older_and_values_are_those_of_now(path: Path, index: Index) -> None:
    index.put(some_items(5))
    made = make_map(path, lambda _: None)
    assert index.map().is_current
    index.delete(["3"])
    view = index.map("i")
    assert (view.is_current, view.map, view.values) == (False, made, ["0", "1", "2", None, "4"])
    index.put([Item("1", some_items(1)[0].vector, {"i": "new"})])
    assert index.map("i").values == ["0", '"new"', "2", None, "4"]
    assert not index.map().is_current


def test_without_a_map_or_with_a_strange_one_it_is_said_how_to_make_one(path: Path, index: Index) -> None:
    index.put(some_items(4))
    with pytest.raises(UnknownMap, match="no map of the index 'default': `rankone index map FOLDER default`"):
        index.map()
    made = make_map(path, lambda _: None)
    fields = json.loads(map_file(path).read_text())
    for text in (
        "",
        "[]",
        "{}",
        *(json.dumps({**fields, **change}) for change in ({"schema": 2}, {"fingerprint": "b" * 64}, {"x": [1.0]})),
        json.dumps({**fields, "sequence": made.sequence + 1}),  # of an index that was replaced by an older one
    ):
        map_file(path).write_text(text)
        with pytest.raises(UnknownMap, match="rankone index map FOLDER default"):
            index.map()


def test_an_index_that_is_dropped_made_anew_or_restored_has_no_map(folder: Path, tmp_path: Path) -> None:
    indexes = Indexes(folder)
    spec = Spec(MODEL, DIM)
    indexes.create("mine", spec)
    path = folder / "mine.sqlite"
    indexes.open("mine", MODEL).put(some_items(3))
    make_map(path, lambda _: None)
    back_up(path, tmp_path / "backup.sqlite", lambda *_: None)
    kept = shutil.copy(map_file(path), tmp_path / "kept")
    indexes.drop("mine")
    assert not map_file(path).exists()
    shutil.copy(kept, map_file(path))
    create_file(path, spec)
    assert not map_file(path).exists()
    path.unlink()
    shutil.copy(kept, map_file(path))
    back_up(tmp_path / "backup.sqlite", path, lambda *_: None)
    assert not map_file(path).exists()
    indexes.close()


def test_an_empty_index_has_nothing_to_map(path: Path) -> None:
    with pytest.raises(IndexProblem, match="holds no items"):
        make_map(path, lambda _: None)
    assert not map_file(path).exists()
