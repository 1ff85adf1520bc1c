"""The call that requests make, with real decoders and a real engine."""

from __future__ import annotations

import asyncio
import time

import pytest

from rankone.service.observe.context import RequestContext, enter
from rankone.service.runtime import Runtime
from tests.service.test_load import Brake

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("is_decoded", [False, True])
async def test_a_cancelled_call_drops_its_work(
    loaded: Runtime, images: list[bytes], monkeypatch: pytest.MonkeyPatch, is_decoded: bool
) -> None:
    """Whether its images still wait for a decoder or already for the engine: nothing of them runs, and its slots are free."""
    brake, inference = Brake(loaded, monkeypatch), loaded.inference
    enter(RequestContext("id", time.perf_counter() + 60))
    running = asyncio.create_task(inference(images[:1]))
    await brake.is_held()
    gone = asyncio.create_task(inference(images[1:6]))
    await asyncio.sleep(1.0 if is_decoded else 0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    brake.go.set()
    assert (await running).embedding.shape == (1, loaded.bundle.manifest.dim)
    await inference(images[:1])
    await asyncio.sleep(0.1)
    assert brake.num_images == [1, 1]
    slots, workers = loaded.pool._slots, len(loaded.pool.pids)
    assert (inference.admission.num_images, slots.qsize()) == (0, slots.count - workers)


async def test_outputs_and_thumbnails_are_in_the_requests_order(loaded: Runtime, images: list[bytes]) -> None:
    enter(RequestContext("id", time.perf_counter() + 60))
    together = await loaded.inference(images[:5], thumbnails=True)
    for row in range(5):
        alone = await loaded.inference(images[row : row + 1])
        assert (together.embedding[row] * alone.embedding[0]).sum() == pytest.approx(1, abs=1e-5)
        assert together.thumbnails[row] is not None
        assert alone.thumbnails == [None]
