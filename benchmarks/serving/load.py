"""Load on a service over HTTP/1.1: in a closed loop, and in an open one whose arrivals wait for nobody.

The generator shares the machine with the service, so it does as little as it can: requests are bytes made before, answers
are read as far as their status and length.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.serving.clock import Clock


@dataclass
class Sample:
    """What came of a load: by status how many, of those served the seconds, and how long all of it took."""

    statuses: Counter[int] = field(default_factory=Counter)
    """0 where the connection ended without an answer, -1 where there was none to be had."""
    seconds: list[float] = field(default_factory=list)
    steady: list[float] = field(default_factory=list)
    """Of these, where requests come by themselves, the seconds of those answered after the lead and while new ones came."""
    duration_s: float = 0.0
    steady_s: float = 0.0
    """How long that was."""

    @property
    def per_s(self) -> float:
        """Requests served a second."""
        return len(self.seconds) / self.duration_s

    def goodput(self, in_time_s: float) -> float:
        """Requests served within that time a second: neither while the queue was filling up nor when nothing came any more."""
        return sum(seconds <= in_time_s for seconds in self.steady) / self.steady_s

    def __add__(self, other: Sample) -> Sample:
        """Both, one after the other."""
        return Sample(
            self.statuses + other.statuses,
            self.seconds + other.seconds,
            self.steady + other.steady,
            self.duration_s + other.duration_s,
            self.steady_s + other.steady_s,
        )

    def percentile(self, percent: float) -> float:
        """Seconds within which that part of the requests served had their answer."""
        return float(np.percentile(self.seconds, percent)) if self.seconds else float("nan")


def request(path: str, body: bytes, content_type: str, headers: Sequence[str] = ()) -> bytes:
    """A POST request as it goes over the wire."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """One kept-alive connection, one request at a time."""

    def __init__(self) -> None:
        self._waiting: asyncio.Future[int] | None = None
        self._head = b""
        self._status = self._left = 0
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.is_open = transport, True

    async def ask(self, data: bytes) -> int:
        """Sends a request; its answer's status, 0 if there is none."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(data)  # type: ignore[attr-defined]
        return await self._waiting

    def data_received(self, data: bytes) -> None:
        if self._left == 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._head[:end].lower()
            at = head.find(b"content-length:")
            self._status = int(head[9:12])
            self._left = int(head[at + 15 :].partition(b"\r\n")[0])
            self.is_open = b"connection: close" not in head
            data, self._head = self._head[end + 4 :], b""
        self._left -= len(data)
        if self._left == 0:
            self._tell(self._status)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self.is_open = False
        self._tell(0)

    def close(self) -> None:
        """Closes it."""
        self._transport.close()

    def _tell(self, status: int) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(status)


class _Connections:
    """Those that rest are used again, unless a server that is stopped now and then could find them too old."""

    def __init__(self, host: str, port: int, *, keep: bool = True) -> None:
        self._host, self._port, self._keep, self._idle = host, port, keep, list[Connection]()

    async def ask(self, data: bytes) -> int:
        """The status of the answer; see `Sample.statuses`."""
        while self._idle and not self._idle[-1].is_open:
            self._idle.pop()
        try:
            connection = self._idle.pop() if self._idle else await self._new()
        except OSError:
            return -1
        status = await connection.ask(data)
        if connection.is_open and self._keep:
            self._idle.append(connection)
        else:
            connection.close()
        return status

    async def _new(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, self._host, self._port)
        return connection

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


async def closed_loop(
    host: str, port: int, requests: Sequence[bytes], concurrency: int, duration_s: float, sample: Sample | None = None
) -> Sample:
    """`concurrency` clients, each sending its next request when it has the answer to the last, until nothing listens.

    What has come so far is in `sample`, where one is given.
    """
    connections, sample = _Connections(host, port), sample or Sample()
    started = time.perf_counter()

    async def client(number: int) -> None:
        at = number
        status = 0
        while status >= 0 and time.perf_counter() - started < duration_s:
            sent = time.perf_counter()
            status = await connections.ask(requests[at % len(requests)])
            _count(sample, status, time.perf_counter() - sent)
            at += concurrency

    await asyncio.gather(*(client(number) for number in range(concurrency)))
    sample.duration_s = time.perf_counter() - started
    connections.close()
    return sample


async def open_loop(
    host: str,
    port: int,
    requests: Sequence[bytes],
    rate: float,
    duration_s: float,
    seed: int = 0,
    lead_s: float = 0.0,
    clock: Clock | None = None,
) -> Sample:
    """Poisson arrivals at `rate` a second, whatever becomes of those before; latency counts from when each was to be sent.

    With a `clock`, all by that: nothing is sent while it stands.
    """
    connections, clock = _Connections(host, port, keep=clock is None), clock or Clock()
    sample, chance = Sample(), random.Random(seed)  # noqa: S311 - arrivals
    started, tasks = clock.now(), set[asyncio.Task[None]]()

    async def send(data: bytes, intended: float) -> None:
        status = await connections.ask(data)
        answered = clock.now()
        _count(sample, status, answered - intended)
        if status == 200 and started + lead_s <= answered < started + duration_s:
            sample.steady.append(answered - intended)

    at, number = chance.expovariate(rate), 0
    while at < duration_s:
        await clock.until(started + at)
        task = asyncio.create_task(send(requests[number % len(requests)], started + at))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        at, number = at + chance.expovariate(rate), number + 1
    await asyncio.gather(*tasks)
    sample.duration_s, sample.steady_s = clock.now() - started, duration_s - lead_s
    connections.close()
    return sample


def _count(sample: Sample, status: int, seconds: float) -> None:
    sample.statuses[status] += 1
    if status == 200:
        sample.seconds.append(seconds)
