"""Load on a service over HTTP/1.1: a closed loop of clients, and an open loop of Poisson arrivals.

The generator shares the machine with the service, so it does little: requests are prepared bytes, and of an answer it
reads only the status and the length.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import uvloop


@dataclass
class Sample:
    """The answers to a load."""

    statuses: Counter[int] = field(default_factory=Counter)
    """Answers by status; 0: the connection ended without an answer, -1: it could not be opened."""
    seconds: list[float] = field(default_factory=list)
    """Latencies of the requests answered with 200."""
    steady: list[float] = field(default_factory=list)
    """Open loop: the latencies of those answered after the lead and before the last arrival."""
    duration_s: float = 0.0
    steady_s: float = 0.0
    """Open loop: seconds between the lead and the last arrival."""
    cpu_s: float = 0.0
    """Processor time of the servers, where it was measured."""

    @property
    def cpu_ms(self) -> float:
        """Processor time of a request answered with 200, in milliseconds."""
        return 1e3 * self.cpu_s / max(len(self.seconds), 1)

    @property
    def others(self) -> Counter[int]:
        """Answers other than 200, by status."""
        return Counter({status: count for status, count in self.statuses.items() if status != 200})

    @property
    def per_s(self) -> float:
        """Requests answered with 200 per second."""
        return len(self.seconds) / self.duration_s

    def goodput(self, in_time_s: float) -> float:
        """Requests per second answered within `in_time_s`, without the lead and the end of the load."""
        return sum(seconds <= in_time_s for seconds in self.steady) / self.steady_s

    def percentile(self, percent: float) -> float:
        """Latency in seconds; NaN if nothing was answered."""
        return float(np.percentile(self.seconds, percent)) if self.seconds else float("nan")

    def count(self, status: int, seconds: float) -> None:
        """Adds one answer."""
        self.statuses[status] += 1
        if status == 200:
            self.seconds.append(seconds)

    def __add__(self, other: Sample) -> Sample:
        """Both loads, one after the other."""
        return Sample(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def request(path: str, body: bytes, content_type: str, headers: Sequence[str] = ()) -> bytes:
    """The bytes of a POST request."""
    fixed = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type}"]
    return "\r\n".join([*fixed, f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body


def run(load: Coroutine[Any, Any, Sample], cpu_s: Callable[[], float]) -> Sample:
    """Runs a load, and notes how much more `cpu_s` of the servers is afterwards."""
    before = cpu_s()
    sample = uvloop.run(load)
    sample.cpu_s = cpu_s() - before
    return sample


class _Connections:
    """Kept-alive connections; a new one is opened when none is idle."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, data: bytes) -> int:
        """Sends a request; the status of its answer, see `Sample.statuses`."""
        while self._idle and self._idle[-1][0].at_eof():
            self._idle.pop()[1].close()
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        except OSError:
            return -1
        try:
            writer.write(data)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        except (OSError, EOFError):
            writer.close()
            return 0
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head[9:12])

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


async def closed_loop(
    host: str, port: int, requests: Sequence[bytes], concurrency: int, duration_s: float, sample: Sample | None = None
) -> Sample:
    """`concurrency` clients, each sending its next request after the last answer; they end when nothing listens.

    Answers are added to `sample` as they come, where one is given.
    """
    connections, sample = _Connections(host, port), sample or Sample()
    started = time.perf_counter()

    async def client(number: int) -> None:
        at, status = number, 0
        while status >= 0 and time.perf_counter() - started < duration_s:
            sent = time.perf_counter()
            status = await connections.ask(requests[at % len(requests)])
            sample.count(status, time.perf_counter() - sent)
            at += concurrency

    await asyncio.gather(*(client(number) for number in range(concurrency)))
    sample.duration_s = time.perf_counter() - started
    connections.close()
    return sample


async def open_loop(
    host: str, port: int, requests: Sequence[bytes], rate: float, duration_s: float, seed: int = 0, lead_s: float = 0.0
) -> Sample:
    """Poisson arrivals, `rate` a second, that wait for no answer.

    A latency starts when the request was due, so a generator that is late does not hide a slow service. Answers in the
    first `lead_s` seconds, while a queue fills up, are not goodput.
    """
    connections, sample, chance = _Connections(host, port), Sample(), random.Random(seed)  # noqa: S311 - arrivals
    started = time.perf_counter()

    async def send(data: bytes, due: float) -> None:
        status = await connections.ask(data)
        answered = time.perf_counter()
        sample.count(status, answered - due)
        if status == 200 and started + lead_s <= answered < started + duration_s:
            sample.steady.append(answered - due)

    async with asyncio.TaskGroup() as tasks:
        at, number = chance.expovariate(rate), 0
        while at < duration_s:
            await asyncio.sleep(started + at - time.perf_counter())
            tasks.create_task(send(requests[number % len(requests)], started + at))
            at, number = at + chance.expovariate(rate), number + 1
    sample.duration_s, sample.steady_s = time.perf_counter() - started, duration_s - lead_s
    connections.close()
    return sample
