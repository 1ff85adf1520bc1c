"""What good clients notice of bad ones: a flood without keys, and connections that send half a request and wait."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.serving.contenders import HOST, Contender, service
from benchmarks.serving.load import Sample, open_loop, request
from benchmarks.subject import jpegs
from benchmarks.timing import console
from rankone.model.bundle import Bundle
from rankone.service.auth.keys import add_key

_FLOOD_PER_S: Final = 300
_NUM_HALVES: Final = 200


def abuse(bundle: Bundle, threads: int, rate: float, duration_s: float) -> None:
    """p99 of single images at this rate, half the capacity: alone, beside the flood, beside the half-sent requests."""
    with tempfile.TemporaryDirectory() as folder:
        secret, _ = add_key(Path(folder, "keys.json"), None, frozenset({"read"}))
        with service(bundle, threads, "--keys", str(Path(folder, "keys.json"))) as contender:
            good = [
                request("/embed", image, "image/jpeg", ["Accept: application/x-npy", f"Authorization: Bearer {secret}"])
                for image in jpegs(16)
            ]
            alone = uvloop.run(_good(contender, good, rate, duration_s))
            flooded = uvloop.run(_beside_flood(contender, good, rate, duration_s))
            halved = uvloop.run(_beside_halves(contender, good, rate, duration_s))
    for name, sample in (
        (f"{_FLOOD_PER_S} requests/s without a valid key", flooded),
        (f"{_NUM_HALVES} half-sent requests", halved),
    ):
        p99, ratio = sample.percentile(99), sample.percentile(99) / alone.percentile(99)
        num_lost = sum(sample.statuses.values()) - len(sample.seconds)
        console.print(
            f"good clients' p99 beside {name}: {1e3 * p99:.0f} ms, {ratio:.2f} x that of {1e3 * alone.percentile(99):.0f} ms "
            f"alone, {num_lost} not served (at most 2 x: {'met' if ratio <= 2 and not num_lost else 'missed'})"
        )


async def _good(contender: Contender, requests: list[bytes], rate: float, duration_s: float) -> Sample:
    return await open_loop(HOST, contender.port, requests, rate, duration_s)


async def _beside_flood(contender: Contender, requests: list[bytes], rate: float, duration_s: float) -> Sample:
    bad = [request("/embed", b"x" * 10_000, "image/jpeg", ["Authorization: Bearer guessed"])]
    flood = asyncio.create_task(open_loop(HOST, contender.port, bad, _FLOOD_PER_S, duration_s, seed=1))
    sample = await _good(contender, requests, rate, duration_s)
    await flood
    return sample


async def _beside_halves(contender: Contender, requests: list[bytes], rate: float, duration_s: float) -> Sample:
    async with _halves(contender):
        return await _good(contender, requests, rate, duration_s)


@asynccontextmanager
async def _halves(contender: Contender) -> AsyncIterator[None]:
    half = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nContent-"
    streams = [await asyncio.open_connection(HOST, contender.port) for _ in range(_NUM_HALVES)]
    for _, writer in streams:
        writer.write(half)
    yield
    for _, writer in streams:
        writer.close()
