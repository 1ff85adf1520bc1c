"""Inputs divided into requests: in order, within every limit, and not read before they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from rankone.client import NewItem, Rejection, bulk
from rankone.client.batches import MAX_BYTES, Batch, divide
from rankone.client.bulk import Bulk, Image
from rankone.client.results import Facts

PLENTY = Facts(dim=3, max_inputs=64, max_bytes=100_000_000)


def places(batches: list[Batch[Image]]) -> list[list[int]]:
    return [[part.index for part in batch.parts] for batch in batches]


def test_by_number() -> None:
    images = [b"x"] * 20
    assert [len(batch) for batch in divide(bulk.embed(), images, PLENTY)] == [16, 4]
    assert [len(batch) for batch in divide(bulk.embed(), images, Facts(3, 7, 100_000_000))] == [7, 7, 6]
    assert [len(batch) for batch in divide(bulk.search_ids("i", {}), ["x"] * 100, PLENTY)] == [64, 36]
    assert list(divide(bulk.embed(), [], PLENTY)) == []


def test_by_bytes_as_they_are_sent() -> None:
    sizes = [1, 15_000_000, 15_000_000, 10_000_000, 40_000_000, 1, 1]
    images = [bytes(size) for size in sizes]
    assert places(list(divide(bulk.embed(), images, PLENTY))) == [[0, 1, 2], [3], [4], [5, 6]]
    in_base64 = list(divide(bulk.search_images("i", {}), images, PLENTY))
    assert places(in_base64) == [[0, 1], [2], [3], [4], [5, 6]]
    small = list(divide(bulk.embed(), [bytes(700)] * 5, Facts(3, 64, 3000)))
    assert places(small) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("size", [1, 100, 487, 488, 2000, 3512])
def test_no_request_is_longer_than_the_service_takes(size: int) -> None:
    """The whole body, with all that is around the images."""
    facts = Facts(3, 64, 4024)
    routes: tuple[Bulk[Any, Any], ...] = (bulk.embed(), bulk.classify(5), bulk.search_images("i", {}))
    images: list[Image] = [bytes(size)] * 9
    requests = [length for route in routes for length in lengths(route, images, facts)]
    requests += lengths(bulk.add("i"), [NewItem(image, metadata={"n": n}) for n, image in enumerate(images)], facts)
    assert all(length <= facts.max_bytes for length in requests)
    assert requests


def lengths(route: Bulk[Any, Any], inputs: Sequence[Any], facts: Facts) -> list[int]:
    """The bytes of the body of every request."""
    calls = [
        route.call([part.content for part in batch.parts]) for batch in divide(route, inputs, facts) if batch.parts
    ]
    return [len(httpx.Request("POST", "http://x", **call.arguments).read()) for call in calls]


def test_what_no_request_can_hold_is_not_sent(tmp_path: Path) -> None:
    images: list[Image] = [b"x", bytes(5000), tmp_path / "gone.png", b"y"]
    (batch,) = divide(bulk.embed(), images, Facts(3, 64, 4000))
    assert [part.index for part in batch.parts] == [0, 3]
    assert batch.rejections == [
        Rejection(1, images[1], "5,000 bytes as they are sent; the service takes 3,488 in a request", 0),
        Rejection(2, images[2], "cannot be read: No such file or directory", 0),
    ]
    nothing_but_bad = divide(bulk.embed(), [tmp_path / "gone.png"] * 20, PLENTY)
    assert [(len(batch.parts), len(batch.rejections)) for batch in nothing_but_bad] == [(0, 16), (0, 4)]


def test_vectors_go_by_the_thousand_within_the_bytes() -> None:
    rows = np.random.default_rng(0).standard_normal((2500, 3)).astype(np.float32)
    many = Facts(3, 10_000, 100_000_000)
    batches = list(divide(bulk.search_vectors("i", {}), rows, many))
    assert [len(batch) for batch in batches] == [1000, 1000, 500]
    sent = [orjson.loads(part.content) for batch in batches for part in batch.parts]
    assert np.array_equal(np.asarray(sent, np.float32), rows)
    wide = list(divide(bulk.add_vectors("i"), (NewItem(np.full(100_000, 1 / 3)) for _ in range(40)), many))
    assert sum(map(len, wide)) == 40
    assert all(batch.num_bytes <= MAX_BYTES for batch in wide)
    assert len(wide) > 1


def test_nothing_is_read_before_it_is_needed() -> None:
    read: list[int] = []

    def images() -> Iterator[bytes]:
        for place in range(10**9):
            read.append(place)
            yield b"x"

    batches = divide(bulk.embed(), images(), PLENTY)
    assert read == []
    for count in (1, 2, 3):
        next(batches)
        assert len(read) == 16 * count + 1


def test_ids_and_metadata_of_another_length_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="source and id are of different lengths"):
        next(bulk.new_items([b"x", b"y"], ["a"], None))
    endless = bulk.new_items(iter([b"x", b"y"]), iter(["a", "b"]), ({"n": n} for n in range(2)))
    assert [(item.id, item.metadata) for item in endless] == [("a", {"n": 0}), ("b", {"n": 1})]
    with pytest.raises(ValueError, match="shorter"):
        list(bulk.new_items(iter([b"x", b"y"]), iter(["a"]), None))
