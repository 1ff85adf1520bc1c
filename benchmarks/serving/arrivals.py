"""Poisson arrivals of single images at fractions of the service's capacity, for all contenders in turn in one run.

A latency starts when a request was due. At 100 % and above, goodput counts the answers that came in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import uvloop
from rich.table import Table

from benchmarks.bundles import jpegs
from benchmarks.serving.contenders import HOST, Contenders
from benchmarks.serving.load import Sample, open_loop
from benchmarks.timing import console, table

_SLOW_S = 0.2


@dataclass(frozen=True)
class Schedule:
    """How long to measure a network that takes `image_s` seconds for one image."""

    image_s: float

    @property
    def is_slow(self) -> bool:
        """Whether every load would take hours: fewer loads, rounds and requests."""
        return self.image_s >= _SLOW_S

    @property
    def turn_s(self) -> float:
        """Seconds of a turn under saturation."""
        return max(1.5, 8 * self.image_s)

    @property
    def turns(self) -> int:
        """Turns of every contender under saturation."""
        return 20 if self.is_slow else 60

    @property
    def in_time_s(self) -> float:
        """The deadline of a request; the service is told."""
        return 25 * self.image_s

    @property
    def loads(self) -> tuple[float, ...]:
        """Arrival rates as fractions of the capacity."""
        return (0.5, 0.75, 0.9, 1.0, 3.0) if self.is_slow else (0.25, 0.5, 0.75, 0.9, 1.0, 1.5, 3.0)

    @property
    def rounds(self) -> int:
        """Rounds of every load, as the speed of a machine drifts over minutes."""
        return 3 if self.is_slow else 6

    def open_s(self, rate: float) -> float:
        """Seconds of all rounds: 1,100 arrivals for the 99.9th percentile, or 160 at a slow network for the 99th.

        Above the capacity, a round must be long enough to fill the queue and to measure behind that.
        """
        return max(self.rounds * max(10.0, 3 * self.in_time_s), (160 if self.is_slow else 1100) / rate)


def arrivals(contenders: Contenders, capacity: float, schedule: Schedule) -> None:
    """Prints a row for every load and contender."""
    found = table(
        f"Poisson arrivals; 100 % is {capacity:.3g} images/s",
        *("load", "", f"in {schedule.in_time_s:.2g} s, /s", "p50 ms", "p95", "p99", "p99.9", "refused"),
        "CPU ms a request",
    )
    for load in schedule.loads:
        _add_load(found, load, load * capacity, contenders, schedule)
    console.print(found)


def _add_load(found: Table, load: float, rate: float, contenders: Contenders, schedule: Schedule) -> None:
    samples, cpu_s = {name: Sample() for name in contenders}, dict.fromkeys(contenders, 0.0)
    files = jpegs(16)
    duration_s, deadline_s = schedule.open_s(rate) / schedule.rounds, schedule.in_time_s
    for number in range(schedule.rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            requests = [contenders[name].single(file, timeout_s=deadline_s) for file in files]
            with contenders[name].awake() as contender:
                before = contender.cpu_s()
                samples[name] += uvloop.run(
                    open_loop(HOST, contender.port, requests, rate, duration_s, number, deadline_s)
                )
                cpu_s[name] += contender.cpu_s() - before
    for name, sample in samples.items():
        cpu_ms = 1e3 * cpu_s[name] / max(len(sample.seconds), 1)
        found.add_row(f"{load:.0%}", name, *_cells(sample, deadline_s), f"{cpu_ms:.0f}")


def _cells(sample: Sample, in_time_s: float) -> Iterator[str]:
    yield f"{sample.goodput(in_time_s):.3g}"
    for percent in (50, 95, 99, 99.9):
        is_known = len(sample.seconds) * round(1000 - 10 * percent) >= 1000  # otherwise it is the slowest request
        yield f"{1e3 * sample.percentile(percent):.0f}" if is_known else "-"
    yield str(sum(count for status, count in sample.statuses.items() if status != 200))
