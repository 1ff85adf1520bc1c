"""What the load generator counts, against a server of the test's own, and how contenders take turns."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks.serving.contenders import Contender
from benchmarks.serving.load import Sample, closed_loop, open_loop, request
from benchmarks.serving.saturation import Turn, _in_turns, _interval, _total

pytestmark = pytest.mark.anyio

HOST = "127.0.0.1"
REQUESTS = [request("/", b"body", "image/jpeg")]


@asynccontextmanager
async def served(answer: Callable[[int], AsyncIterator[bytes]]) -> AsyncIterator[int]:
    """The port of a server that answers its n-th request, from 0 on, with the chunks that it is given."""
    count, serving = 0, set[asyncio.Task[None] | None]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        serving.add(asyncio.current_task())
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\nbody")
            number, count = count, count + 1
            async for chunk in answer(number):
                writer.write(chunk)
                await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*filter(None, serving))


async def test_what_is_answered_after_the_arrivals_is_served_and_no_goodput(anyio_backend: str) -> None:
    arriving = asyncio.Event()

    async def answer(number: int) -> AsyncIterator[bytes]:
        if number >= 3:
            await arriving.wait()
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async with served(answer) as port:
        loop = asyncio.create_task(open_loop(HOST, port, REQUESTS, 100, 0.5))
        await asyncio.sleep(0.7)
        arriving.set()
        sample = await loop
    assert sample.statuses[200] == len(sample.seconds) > 20
    assert len(sample.steady) == 3
    assert sample.goodput(10) == 3 / 0.5
    assert sample.goodput(-1) == 0
    assert max(sample.seconds) > 0.6, "counted from when the first of those held back was to be sent"


async def test_what_is_answered_while_the_queue_fills_up_is_no_goodput(anyio_backend: str) -> None:
    async def answer(number: int) -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async with served(answer) as port:
        sample = await open_loop(HOST, port, REQUESTS, 200, 0.5, lead_s=0.3)
    assert sample.steady_s == pytest.approx(0.2)
    assert 0 < len(sample.steady) < len(sample.seconds) - 20
    assert sample.goodput(10) == len(sample.steady) / sample.steady_s


async def test_answers_are_told_apart_by_status_and_read_to_their_end(anyio_backend: str) -> None:
    async def answer(number: int) -> AsyncIterator[bytes]:
        if number % 2:
            yield b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 1\r\n\r\nx"
        else:
            yield b"HTTP/1.1 200 OK\r\nContent-Le"
            yield b"ngth: 4\r\n\r\nab"
            yield b"cd"

    async with served(answer) as port:
        sample = await closed_loop(HOST, port, REQUESTS, 1, 0.1)
    assert abs(sample.statuses[200] - sample.statuses[429]) <= 1
    assert sample.statuses.keys() == {200, 429}
    assert len(sample.seconds) == sample.statuses[200] > 0


async def test_lost_and_refused_connections_are_counted_apart(anyio_backend: str) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"body")
        writer.close()

    async with await asyncio.start_server(hang_up, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        lost = await closed_loop(HOST, port, REQUESTS, 1, 0.1)
    assert lost.statuses.keys() == {0}
    refused = await closed_loop(HOST, port, REQUESTS, 2, 60)
    assert refused.statuses == {-1: 2}
    assert refused.seconds == []


def test_samples_of_rounds_are_one_sample() -> None:
    first, second = Sample(steady_s=1, duration_s=2), Sample(steady_s=3, duration_s=5)
    first.seconds, first.steady, second.seconds, second.steady = [1, 9], [1], [3], [3]
    first.statuses.update({200: 2})
    second.statuses.update({200: 1, 429: 4})
    both = first + second
    assert (both.per_s, both.goodput(2), both.statuses) == (3 / 7, 1 / 4, {200: 3, 429: 4})
    assert both.percentile(50) == 3


def test_a_contender_and_its_children_stand_still_out_of_their_turn() -> None:
    process = subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60"])
    contender = Contender("sleepers", 0, process.pid, "/")
    try:
        until(lambda: states(process.pid) == "SSS")  # a shell that still forks by vfork cannot be stopped
        with contender.asleep():
            until(lambda: states(process.pid) == "TTT")
            with contender.awake():
                until(lambda: states(process.pid) == "SSS")
            until(lambda: states(process.pid) == "TTT")
        until(lambda: states(process.pid) == "SSS")
    finally:
        contender.signal(signal.SIGKILL)
        process.wait()


def test_what_ends_while_processes_are_listed_has_no_children_and_took_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process or a thread may end between the listing and the reading."""
    with subprocess.Popen(["true"]) as ended:
        pass
    monkeypatch.setattr(Path, "glob", lambda path, _: [path / str(ended.pid) / "children"])
    contender = Contender("", 0, ended.pid, "/")
    assert contender.cpu_s() == 0
    contender.signal(signal.SIGCONT)


def test_everybody_has_as_many_turns_and_the_first_of_all_do_not_count() -> None:
    played = list[str]()

    def play(name: str) -> Turn:
        played.append(name)
        return Turn(len(played), 1.0, 0.5)

    turns = _in_turns({"a": lambda: play("a"), "b": lambda: play("b")}, 3)
    assert played == list("ababbaab")
    assert [turn.num_images for turn in turns["a"]] == [3, 6, 7]
    assert [turn.num_images for turn in turns["b"]] == [4, 5, 8]
    assert _total(turns["a"]) == Turn(16, 3.0, 1.5)


def test_what_makes_both_slow_does_not_make_their_ratio_uncertain() -> None:
    engine = [Turn(images, 1.0, 2.0) for images in (10, 20, 40, 30, 10)]
    alike = [Turn(turn.num_images * 9 // 10, 1.0, 2.0) for turn in engine]
    assert _interval(alike, engine) == pytest.approx((0.9, 0.9))
    low, high = _interval([Turn(18, 1.0, 2.0), *alike[1:4], Turn(0, 1.0, 2.0)], engine)
    assert low < 0.85
    assert high > 0.95


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def states(pid: int) -> str:
    """Of a process and those below it, as `ps` has them."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state + "".join(states(int(child)) for child in children)
