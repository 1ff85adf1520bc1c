"""Both clients with the real app, which takes eight images and two megabytes in a request."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from rankone.client import AsyncClient, Client, Fault, Image, NewItem, Rejection, ServiceError
from rankone.service.runtime import Runtime
from rankone.service.settings import Settings
from tests.client.conftest import URL, in_thread
from tests.services import serving

pytestmark = pytest.mark.anyio


@in_thread
def test_more_images_than_a_request_holds(client: Client, images: list[bytes]) -> None:
    """Dividing them changes neither order nor values: each image alone has the same embedding."""
    embeddings = client.embed(images)
    assert embeddings.shape == (16, 10_000)
    for n in (0, 7, 8, 15):
        assert np.allclose(client.embed([images[n]])[0], embeddings[n], atol=1e-6)
    assert [len(row) for row in client.classify(images, top_k=2)] == [2] * 16
    assert client.embed([]).shape == (0, 10_000)


@in_thread
def test_items_are_added_found_and_deleted(client: Client, images: list[bytes]) -> None:
    ids = [f"photos/{n}.png" for n in range(16)]
    assert client.add(images, ids, [{"n": n} for n in range(16)]) == ids
    assert client.count() == 16
    assert [item.id for item in client.items()] == ids
    item = client.item(ids[3], vector=True)
    assert item.metadata == {"n": 3}
    assert item.vector is not None
    embeddings = client.embed(images)
    assert np.allclose(item.vector, embeddings[3], atol=1e-3)
    for found in (client.search(images, k=1), client.search_vectors(embeddings, k=1), client.search_ids(ids, k=1)):
        assert [hits[0].id for hits in found] == ids
    assert client.search(images[:1], k=16, min_score=0.999)[0][0].metadata == {"n": 0}
    assert client.delete(ids[:12]) == 12
    assert [entry.count for entry in client.indexes()] == [4]
    generated = client.add_vectors(embeddings[:2])
    assert len(set(generated)) == 2
    assert client.add(images[:1], ["photos/15.png"]) == ["photos/15.png"]
    assert client.describe_index().count == 6


async def test_a_client_without_a_timeout_respects_a_short_maximum_of_the_service(
    settings: Settings, loaded: Runtime, images: list[bytes]
) -> None:
    """A client that sent a default timeout could not even request `/info`, which names the maximum."""
    short = settings.model_copy(update={"request_timeout_s": 20.0, "max_request_timeout_s": 20.0})
    async with serving(short, loaded) as app:
        transport = httpx.ASGITransport(app=app)
        async with AsyncClient(URL, transport=transport) as client:
            assert (await client.info())["limits"]["max_request_timeout_s"] == 20
            assert (await client.embed(images[:1])).shape == (1, 10_000)
        async with AsyncClient(URL, transport=transport, timeout_s=20.5) as client:
            with pytest.raises(ServiceError, match="422: X-Request-Timeout must be .* at most 20"):
                await client.info()


@in_thread
def test_explanations_add_up(client: Client, images: list[bytes]) -> None:
    client.add(images[4], ["x"])
    (best,) = client.explain(images[0], overlay=True)
    assert best.label == client.classify(images[0], top_k=1)[0][0].label
    assert float(best.shares.sum()) + best.rest == pytest.approx(best.score, abs=1e-4)
    assert best.overlay is not None
    assert best.overlay.startswith(b"\x89PNG")
    sides = client.explain(images[0], item_id="x", item_image=images[4])
    assert [side.side for side in sides] == ["query", "item"]
    assert sides[0].score == pytest.approx(client.search(images[0], k=1)[0][0].score, abs=1e-3)


async def test_the_asynchronous_client(async_client: AsyncClient, images: list[bytes]) -> None:
    ids = [f"{n}" for n in range(16)]
    assert await async_client.ready()
    assert await async_client.add(images, ids) == ids
    embeddings = await async_client.embed(images)
    found = await async_client.search_vectors(embeddings, k=1)
    assert [hits[0].id for hits in found] == ids
    assert [answer.index async for answer in async_client.classify_iter(images)] == list(range(16))
    assert sorted([item.id async for item in async_client.items()]) == sorted(ids)


@in_thread
def test_errors_name_inputs_by_their_index_in_the_call(client: Client, images: list[bytes]) -> None:
    broken = [*images[:9], b"text", *images[9:11], images[0][:500]]
    with pytest.raises(ServiceError, match="image 9: not an image: this is text") as raised:
        client.embed(broken)
    assert (raised.value.status, [fault.index for fault in raised.value.errors]) == (415, [9, 12])
    assert raised.value.errors[0] == Fault(9, "not an image: this is text; JPEG, PNG, WebP, AVIF and GIF are accepted")
    with pytest.raises(ServiceError, match="item 9: "):
        client.add(broken)
    with pytest.raises(ServiceError, match="vector 1: "):
        client.search_vectors([np.eye(1, 10_000)[0], np.ones(3)])


@in_thread
def test_with_on_rejection_all_other_images_are_answered(client: Client, images: list[bytes], tmp_path: Path) -> None:
    """Nothing is stored for the rejected ones."""
    (tmp_path / "one.png").write_bytes(images[3])
    sources: list[Image] = [b"text", *images[:3], tmp_path / "one.png", tmp_path / "gone.png", images[0][:500]]
    rejected: list[Rejection[NewItem]] = []
    answers = list(
        client.add_iter((NewItem(s, id=str(n)) for n, s in enumerate(sources)), on_rejection=rejected.append)
    )
    assert [(answer.index, answer.value) for answer in answers] == [(n, str(n)) for n in (1, 2, 3, 4)]
    assert sorted((entry.index, entry.source.id, entry.status) for entry in rejected) == [
        (0, "0", 415),
        (5, "5", 0),
        (6, "6", 415),
    ]
    assert next(entry for entry in rejected if entry.index == 5).reason == "cannot be read: No such file or directory"
    assert client.count() == 4
    with pytest.raises(ServiceError, match="image 1: cannot be read: No such file"):
        client.embed([tmp_path / "one.png", tmp_path / "gone.png"])


@in_thread
def test_errors_of_a_whole_request_are_raised(client: Client, images: list[bytes]) -> None:
    rejected: list[Rejection[bytes]] = []
    with pytest.raises(ServiceError, match="there is no index 'other'") as raised:
        list(client.search_iter(images, "other", rejected.append))
    assert (raised.value.status, raised.value.errors, rejected) == (404, (), [])
    with pytest.raises(ServiceError, match="there is no item 'missing'"):
        client.item("missing")
