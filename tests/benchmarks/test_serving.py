"""What the load generator counts, against a server of the test's own, and how contenders take turns."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks.serving import arrivals
from benchmarks.serving.clock import Clock
from benchmarks.serving.contenders import Contender
from benchmarks.serving.load import Sample, closed_loop, open_loop, request
from benchmarks.serving.patience import Patience

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


async def test_nothing_is_sent_while_the_clock_stands_nor_does_that_time_count(anyio_backend: str) -> None:
    clock, served_when = Clock(goes=False), list[float]()

    async def answer(number: int) -> AsyncIterator[bytes]:
        served_when.append(clock.now())
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async with served(answer) as port:
        loop = asyncio.create_task(open_loop(HOST, port, REQUESTS, 100, 0.4, clock=clock))
        for _ in range(3):
            await asyncio.sleep(0.2)  # longer than an answer takes, so that it would show in the latency
            with clock.going():
                await asyncio.sleep(0.15)
        sample = await loop
    assert sample.statuses.keys() == {200}
    assert 20 < len(sample.seconds) == len(served_when)
    assert 0.4 < clock.now() < 0.6
    assert sample.duration_s <= clock.now()
    assert max(sample.seconds) < 0.15
    assert served_when == sorted(served_when)


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


async def test_the_same_arrivals_come_to_all_and_one_at_a_time_is_awake(
    anyio_backend: str,
    sleepers: list[subprocess.Popen[bytes]],
    photos_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photos").symlink_to(photos_root)
    monkeypatch.chdir(tmp_path)
    num_awake = list[int]()

    async def answer(number: int) -> AsyncIterator[bytes]:
        num_awake.append("".join(states(process.pid) for process in sleepers).count("S"))
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async with served(answer) as one, served(answer) as other:
        contenders = {
            name: Plain(name, port, process.pid, "/")
            for name, port, process in zip("ab", (one, other), sleepers, strict=True)
        }
        with contenders["a"].asleep(), contenders["b"].asleep():
            samples, cpu_s = await asyncio.to_thread(arrivals._in_turns, contenders, 80, Hasty(0.01))
    assert samples["a"].statuses == samples["b"].statuses
    assert samples["a"].statuses[200] > 20
    assert set(num_awake) <= {0, 1}, "0: at the end of a turn"
    assert num_awake.count(1) > 20
    assert cpu_s == {"a": 0.0, "b": 0.0}


class Plain(Contender):
    def single(self, image: bytes, accept: str = "", query: str = "", timeout_s: float = 60.0) -> bytes:
        return REQUESTS[0]


class Hasty(Patience):
    turn_s = 0.05

    def open_s(self, rate: float) -> float:
        return 0.4


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
