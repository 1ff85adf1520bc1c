"""Patches of metadata: merged as RFC 7396 says, stored whole or not at all, and searched at once."""

from __future__ import annotations

import sqlite3
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from rankone.index import Index, IndexDamaged, Item, MetadataTooLong, Patch, Spec, UnknownItem, compiled
from rankone.index.change import Effect
from rankone.index.database import create_file
from tests.index.conftest import DIM, MODEL, some_items
from tests.index.oracle import unit

LIMIT = 1000
# RFC 7396, appendix A, those whose document and result are objects
EXAMPLES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("before", "patch", "after"), EXAMPLES)
def test_the_examples_of_the_standard(index: Index, before: dict[str, Any], patch: dict[str, Any], after: Any) -> None:
    index.put([Item("x", unit(1, DIM)[0], before)])
    index.submit_patch(Patch("x", patch, LIMIT)).result()
    assert index.get("x").metadata == after


def test_all_but_the_metadata_stays_and_the_patch_is_found_at_once_and_after_a_start(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    create_file(path, Spec(MODEL, DIM, thumbnails=True))
    index = Index(path)
    vectors = unit(3, DIM)
    index.put([Item(name, v, {"n": 1}, "f" * 64, b"small") for name, v in zip("abc", vectors, strict=True)])
    before = index.get("b")
    effect = index.submit_patch(Patch("b", {"n": 2, "m": True}, LIMIT)).result()
    assert (effect.sequence, effect.numbers, effect.removed) == (4, range(4, 5), [])
    for _ in range(2):
        after = index.get("b")
        assert (after.metadata, after.sha256, after.thumbnail) == ({"n": 2, "m": True}, before.sha256, b"small")
        assert after.vector.tobytes() == before.vector.tobytes()
        ((hit,),) = index.search(vectors[1:2], 3, where=compiled({"n": 2}))
        assert (hit.id, hit.metadata) == ("b", after.metadata)
        assert index.search(vectors[:1], 3)[0][0].id == "a"
        assert (len(index), [item.id for _, item in index.page(9)], index.problem) == (3, ["a", "c", "b"], None)
        index.close()
        index = Index(path)
    index.close()


def test_what_cannot_be_patched_is_refused_alone(index: Index, path: Path) -> None:
    index.put(some_items(3))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE items SET metadata = '{\"i\": 7}' WHERE id = '1'")
    connection.commit()
    connection.close()
    long: dict[str, Any] = {"long": "x" * LIMIT}
    asked = (("0", {"i": 5}), ("9", {"i": 5}), ("1", {"i": 5}), ("2", long), ("2", {"i": 6}))
    futures = [index.submit_patch(Patch(item_id, patch, LIMIT)) for item_id, patch in asked]
    first, unknown, damaged, too_long, last = futures
    for future, kind, reason in (
        (unknown, UnknownItem, "there is no item '9'"),
        (damaged, IndexDamaged, "the item '1' is damaged"),
        (too_long, MetadataTooLong, "of '2' would have 1,017 bytes; at most 1,000"),
    ):
        with pytest.raises(kind, match=reason):
            future.result()
    assert (first.result().sequence, last.result().sequence) == (4, 5)
    assert (index.get("0").metadata, index.get("2").metadata) == ({"i": 5}, {"i": 6})


def test_patches_of_many_clients_are_all_kept(index: Index) -> None:
    """Each is merged with what is stored when its turn comes, not with what its client has seen."""
    index.put(some_items(1))
    futures: list[Future[Effect]] = [index.submit_patch(Patch("0", {f"n{i}": i}, LIMIT)) for i in range(50)]
    for future in futures:
        future.result()
    assert index.get("0").metadata == {"i": 0} | {f"n{i}": i for i in range(50)}
