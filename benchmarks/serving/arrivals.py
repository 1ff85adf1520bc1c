"""Poisson arrivals of single images at fractions of the service's capacity, for all contenders in turn in one run.

A latency starts when a request was due. At 100 % and above, goodput counts the answers that came in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table

from benchmarks.bundles import jpegs
from benchmarks.serving.contenders import HOST, Contenders
from benchmarks.serving.load import Sample, open_loop, run
from benchmarks.timing import console, table

_SLOW_S = 0.2


@dataclass(frozen=True)
class Schedule:
    """How long to measure: `turns` of `turn_s` seconds under saturation, then `rounds` of Poisson arrivals at every load."""

    turn_s: float
    turns: int
    loads: tuple[float, ...]
    """Arrival rates as fractions of the capacity."""
    rounds: int
    round_s: float
    """At least; above the capacity a round must fill the queue first."""
    num_requests: int
    """At least, in all rounds: 1,100 for the 99.9th percentile, 160 for the 99th."""
    in_time_s: float
    """The deadline of a request, sent to the service with it."""

    @classmethod
    def of(cls, image_s: float) -> Schedule:
        """The schedule for a network that takes `image_s` seconds an image; less of everything if that is slow."""
        in_time_s = 25 * image_s
        turn_s, round_s = max(1.5, 8 * image_s), max(10.0, 3 * in_time_s)
        if image_s >= _SLOW_S:
            return cls(turn_s, 20, (0.5, 0.75, 0.9, 1.0, 3.0), 3, round_s, 160, in_time_s)
        return cls(turn_s, 60, (0.25, 0.5, 0.75, 0.9, 1.0, 1.5, 3.0), 6, round_s, 1100, in_time_s)


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
    samples, files = {name: Sample() for name in contenders}, jpegs(16)
    duration_s = max(schedule.round_s, schedule.num_requests / rate / schedule.rounds)
    deadline_s = schedule.in_time_s
    for number in range(schedule.rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            requests = [contenders[name].single(file, timeout_s=deadline_s) for file in files]
            with contenders[name].awake() as contender:
                load_of_round = open_loop(HOST, contender.port, requests, rate, duration_s, number, deadline_s)
                samples[name] += run(load_of_round, contender.cpu_s)
    for name, sample in samples.items():
        found.add_row(f"{load:.0%}", name, *_cells(sample, deadline_s), f"{sample.cpu_ms:.0f}")


def _cells(sample: Sample, in_time_s: float) -> Iterator[str]:
    yield f"{sample.goodput(in_time_s):.3g}"
    for percent in (50, 95, 99, 99.9):
        is_known = len(sample.seconds) * round(1000 - 10 * percent) >= 1000  # otherwise it is the slowest request
        yield f"{1e3 * sample.percentile(percent):.0f}" if is_known else "-"
    yield str(sample.others.total())
