"""Inputs divided into requests: in order, within every limit, and read only when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from rankone.client import NewItem, batches
from rankone.client.batches import MAX_BYTES, MAX_VECTORS, BatchRoute, EncodedInput, divide
from rankone.client.inputs import Image, image_to_json, new_items, vector_to_json
from rankone.client.results import Limits

LARGE = Limits(dim=3, max_inputs=64, max_bytes=100_000_000)
SEARCH_IMAGES = batches.search("i", "image", image_to_json, {})
SEARCH_VECTORS = batches.search("i", "vector", vector_to_json, {})
SEARCH_IDS = batches.search("i", "id", orjson.dumps, {})


def indices(divided: Iterator[list[EncodedInput[Any]]]) -> list[list[int]]:
    return [[entry.index for entry in batch] for batch in divided]


def test_division_by_number() -> None:
    images = [b"x"] * 20
    assert [len(batch) for batch in divide(batches.embed(), images, LARGE)] == [16, 4]
    assert [len(batch) for batch in divide(batches.embed(), images, Limits(3, 7, 100_000_000))] == [7, 7, 6]
    assert [len(batch) for batch in divide(SEARCH_IDS, ["x"] * 100, LARGE)] == [64, 36]
    assert list(divide(batches.embed(), [], LARGE)) == []


def test_division_by_bytes_as_they_are_sent() -> None:
    sizes = [1, 15_000_000, 15_000_000, 10_000_000, 40_000_000, 1, 1]
    images = [bytes(size) for size in sizes]
    assert indices(divide(batches.embed(), images, LARGE)) == [[0, 1, 2], [3], [4], [5, 6]]
    assert indices(divide(SEARCH_IMAGES, images, LARGE)) == [[0, 1], [2], [3], [4], [5, 6]]  # in base64
    assert indices(divide(batches.embed(), [bytes(700)] * 5, Limits(3, 64, 3000))) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("size", [1, 100, 487, 488, 2000, 3512])
def test_no_request_is_longer_than_the_service_takes(size: int) -> None:
    """The whole body counts, with everything around the images."""
    limits = Limits(3, 64, 4024)
    images: list[Image] = [bytes(size)] * 9
    routes: tuple[BatchRoute[Any, Any], ...] = (batches.embed(), batches.classify(5), SEARCH_IMAGES)
    lengths = [length for route in routes for length in body_lengths(route, images, limits)]
    items = [NewItem(image, metadata={"n": n}) for n, image in enumerate(images)]
    lengths += body_lengths(batches.add("i"), items, limits)
    assert lengths
    assert all(length <= limits.max_bytes for length in lengths)


def body_lengths(route: BatchRoute[Any, Any], sources: Sequence[Any], limits: Limits) -> list[int]:
    """The number of bytes in the body of each request."""
    sent = [[entry.content for entry in batch if not entry.error] for batch in divide(route, sources, limits)]
    return [len(httpx.Request("POST", "http://x", **route.body(contents)).read()) for contents in sent if contents]


def test_inputs_that_are_too_large_or_cannot_be_read_are_not_sent(tmp_path: Path) -> None:
    images: list[Image] = [b"x", bytes(5000), tmp_path / "missing.png", b"y"]
    (batch,) = divide(batches.embed(), images, Limits(3, 64, 4000))
    assert [entry.error for entry in batch] == [
        "",
        "5,000 bytes when encoded; the service takes 3,488 in a request",
        "cannot be read: No such file or directory",
        "",
    ]
    assert [entry.source for entry in batch] == images
    unreadable = divide(batches.embed(), [tmp_path / "missing.png"] * 20, LARGE)
    assert [len(batch) for batch in unreadable] == [16, 4]


def test_vectors_are_sent_by_the_thousand_within_the_byte_limit() -> None:
    rows = np.random.default_rng(0).standard_normal((2500, 3)).astype(np.float32)
    limits = Limits(3, 10_000, 100_000_000)
    divided = list(divide(SEARCH_VECTORS, rows, limits))
    assert [len(batch) for batch in divided] == [1000, 1000, 500]
    sent = [orjson.loads(entry.content) for batch in divided for entry in batch]
    assert np.array_equal(np.asarray(sent, np.float32), rows)
    items = (NewItem(np.full(100_000, 1 / 3)) for _ in range(40))
    wide = list(divide(batches.add("i", MAX_VECTORS), items, limits))
    assert sum(map(len, wide)) == 40
    assert len(wide) > 1
    assert all(sum(len(entry.content) for entry in batch) <= MAX_BYTES for batch in wide)


def test_inputs_are_read_only_when_they_are_needed() -> None:
    num_read = 0

    def images() -> Iterator[bytes]:
        nonlocal num_read
        while True:
            num_read += 1
            yield b"x"

    divided = divide(batches.embed(), images(), LARGE)
    assert num_read == 0
    for count in (1, 2, 3):
        next(divided)
        assert num_read == 16 * count + 1


def test_ids_and_metadata_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="source and id are of different lengths"):
        next(new_items([b"x", b"y"], ["a"], None))
    items = new_items(iter([b"x", b"y"]), iter(["a", "b"]), ({"n": n} for n in range(2)))
    assert [(item.id, item.metadata) for item in items] == [("a", {"n": 0}), ("b", {"n": 1})]
    with pytest.raises(ValueError, match="shorter"):
        list(new_items(iter([b"x", b"y"]), iter(["a"]), None))
