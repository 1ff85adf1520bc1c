"""Streams: in order, with a bounded number of requests at once and of inputs in memory, and cancelled when closed."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterator

import httpx
import numpy as np
import pytest

from rankone.client import AsyncClient, Client, Rejection, ServiceError
from tests.client.conftest import INFO, URL, Call, json_response, npy, npy_response

pytestmark = pytest.mark.anyio

PER_REQUEST = INFO["limits"]["max_images"]  # type: ignore[index]


def images(count: int, read: list[int]) -> Iterator[bytes]:
    """Images whose content is their number, which is also added to `read`."""
    for n in range(count):
        read.append(n)
        yield f"image {n} ".encode()


def embed(request: httpx.Request) -> httpx.Response:
    """Responds with the number of each image, three times, as its embedding."""
    if request.url.path == "/info":
        return json_response(INFO)
    numbers = [int(part.split()[0]) for part in request.content.split(b"\r\n\r\nimage ")[1:]]
    return npy_response(npy([[n] * 3 for n in numbers]))


def slow(answer: Callable[[int], Awaitable[None]]) -> httpx.AsyncBaseTransport:
    """A service that awaits `answer`, called with the number of the first image, before it responds."""

    async def service(request: httpx.Request) -> httpx.Response:
        response = embed(request)
        if request.url.path != "/info":
            await answer(int(np.load(io.BytesIO(response.content))[0, 0]))
        return response

    return httpx.MockTransport(service)


def test_the_blocking_client_reads_the_inputs_of_one_request_at_a_time() -> None:
    read: list[int] = []
    with Client(URL, transport=httpx.MockTransport(embed)) as client:
        for answer in client.embed_iter(images(10**9, read)):
            assert answer.value.tolist() == [answer.index] * 3
            assert len(read) <= (answer.index // PER_REQUEST + 1) * PER_REQUEST + 1
            if answer.index == 50:
                break
    assert len(read) == 53


async def test_answers_keep_the_order_of_the_inputs() -> None:
    """Of four concurrent requests, the last one is answered first."""
    waiting: dict[int, asyncio.Event] = {}
    finished: list[int] = []

    async def answer(first: int) -> None:
        waiting[first] = asyncio.Event()
        if len(waiting) == 4:
            for event in reversed(waiting.values()):
                event.set()
                await asyncio.sleep(0)
        await waiting[first].wait()
        finished.append(first)

    async with AsyncClient(URL, transport=slow(answer), concurrency=4) as client:
        answers = [entry async for entry in client.embed_iter(images(16, []))]
    assert [entry.index for entry in answers] == list(range(16))
    assert [entry.value.tolist() for entry in answers] == [[n] * 3 for n in range(16)]
    assert finished != sorted(finished)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_requests_at_once_and_inputs_in_memory_are_bounded(concurrency: int) -> None:
    read: list[int] = []
    now, most, limit_reached = 0, 0, asyncio.Event()

    async def answer(_: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == concurrency:
            limit_reached.set()
        await limit_reached.wait()
        await asyncio.sleep(0.001)
        now -= 1

    async with AsyncClient(URL, transport=slow(answer), concurrency=concurrency) as client:
        async for entry in client.embed_iter(images(120, read)):
            assert len(read) <= entry.index + PER_REQUEST * (concurrency + 1) + 1
    assert (most, len(read)) == (concurrency, 120)


async def test_requests_are_cancelled_when_the_stream_is_closed() -> None:
    started: list[int] = []
    ended: list[int] = []
    all_started = asyncio.Event()

    async def answer(first: int) -> None:
        started.append(first)
        if len(started) == 3:
            all_started.set()
        try:
            await (all_started.wait() if first == 0 else asyncio.sleep(3600))
        finally:
            ended.append(first)

    async with AsyncClient(URL, transport=slow(answer), concurrency=3) as client:
        stream = client.embed_iter(images(100, []))
        assert (await anext(stream)).index == 0
        await stream.aclose()
    assert started == [0, 4, 8]
    assert sorted(ended) == [0, 4, 8]


async def test_an_error_is_raised_after_the_answers_before_it() -> None:
    def service(request: httpx.Request) -> httpx.Response:
        if b"image 9 " in request.content:
            return json_response({"detail": "image 1: bad", "errors": [{"index": 1, "reason": "bad"}]}, 422)
        return embed(request)

    async with AsyncClient(URL, transport=httpx.MockTransport(service)) as client:
        stream = client.embed_iter(images(40, []))
        seen = [(await anext(stream)).index for _ in range(8)]
        with pytest.raises(ServiceError, match="422: image 9: bad"):
            await anext(stream)
    assert seen == list(range(8))


async def test_an_exception_of_the_inputs_ends_the_stream() -> None:
    def some() -> Iterator[bytes]:
        yield from images(8, [])
        raise KeyError("of the caller")

    async with AsyncClient(URL, transport=httpx.MockTransport(embed)) as client:
        with pytest.raises(KeyError, match="of the caller"):
            [entry async for entry in client.embed_iter(some())]
    with Client(URL, transport=httpx.MockTransport(embed)) as blocking, pytest.raises(KeyError):
        blocking.embed(some())


@pytest.mark.parametrize("index", [None, 99, -1])
def test_errors_that_name_no_input_are_raised_even_with_on_rejection(call: Call, index: int | None) -> None:
    """Also if there is no input with the index: repeating the same request would never end."""
    num_requests = 0

    def service(request: httpx.Request) -> httpx.Response:
        nonlocal num_requests
        if request.url.path == "/info":
            return json_response(INFO)
        num_requests += 1
        assert num_requests == 1, "the request was repeated"
        errors = [] if index is None else [{"index": index, "reason": "unknown"}]
        return json_response({"detail": "all of it", "errors": errors}, 422)

    rejected: list[object] = []
    with pytest.raises(ServiceError, match="all of it"):
        call(service, "embed_iter", images(3, []), rejected.append)
    assert rejected == []


def test_rejected_inputs_are_left_out_of_the_next_request(call: Call) -> None:
    """Until none is rejected: of the second request, first 5 and 6 are rejected, then 7, and 4 is answered."""
    requests: list[list[int]] = []

    def service(request: httpx.Request) -> httpx.Response:
        numbers = [int(part.split()[0]) for part in request.content.split(b"\r\n\r\nimage ")[1:]]
        if request.url.path != "/info":
            requests.append(numbers)
            assert len(requests) < 10
        at_fault = [position for position, n in enumerate(numbers) if n in ((5, 6) if 5 in numbers else (7,))]
        if at_fault:
            errors = [{"index": position, "reason": f"bad {numbers[position]}"} for position in at_fault]
            return json_response({"detail": "bad", "errors": errors}, 422)
        return embed(request)

    rejected: list[Rejection[bytes]] = []
    answers = call(service, "embed_iter", images(10, []), rejected.append)
    assert [(entry.index, entry.value[0]) for entry in answers] == [(n, n) for n in (0, 1, 2, 3, 4, 8, 9)]
    assert sorted((entry.index, entry.reason, entry.status) for entry in rejected) == [
        (n, f"bad {n}", 422) for n in (5, 6, 7)
    ]
    assert sorted(requests) == [[0, 1, 2, 3], [4], [4, 5, 6, 7], [4, 7], [8, 9]]


async def test_the_limits_are_requested_once_and_only_if_they_are_needed() -> None:
    paths: list[str] = []

    def service(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return embed(request) if request.url.path in ("/info", "/embed") else json_response({"deleted": 0})

    expected = ["/indexes/default/items/delete", "/info", "/embed", "/embed"]
    with Client(URL, transport=httpx.MockTransport(service)) as client:
        client.delete(["a"])
        client.embed(images(1, []))
        client.embed(images(1, []))
    assert paths == expected
    paths.clear()
    async with AsyncClient(URL, transport=httpx.MockTransport(service)) as async_client:
        await async_client.delete(["a"])
        await async_client.embed(images(1, []))
        await async_client.embed(images(1, []))
    assert paths == expected


def test_a_concurrency_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="concurrency is 0"):
        AsyncClient(URL, concurrency=0)
