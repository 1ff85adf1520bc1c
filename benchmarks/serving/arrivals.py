"""Poisson arrivals of single images at parts of the service's capacity; latency from when each was to be sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait

import uvloop
from rich.table import Table

from benchmarks.serving.clock import Clock
from benchmarks.serving.contenders import HOST, LONG_S, Contender, Contenders
from benchmarks.serving.load import Sample, open_loop
from benchmarks.serving.patience import Patience
from benchmarks.subject import jpegs
from benchmarks.timing import console, table


def arrivals(contenders: Contenders, capacity: float, patience: Patience) -> None:
    """Prints the table: the contenders at every load, which take turns in rounds."""
    found = _table("Poisson arrivals", capacity, patience)
    for load in patience.loads:
        samples = {name: Sample() for name in contenders}
        cpu_s = dict.fromkeys(contenders, 0.0)
        for number in range(patience.rounds):
            for name in list(contenders)[:: -1 if number % 2 else 1]:
                sample, seconds = _round(contenders[name], load * capacity, patience, seed=number)
                samples[name] += sample
                cpu_s[name] += seconds
        _add_rows(found, load, samples, cpu_s, patience)
    console.print(found)


def side_by_side(contenders: Contenders, capacity: float, patience: Patience) -> None:
    """Prints the table: the same arrivals for all at once, in turns of seconds, each by a clock that stands out of its turn.

    Nobody may have deadlines, which are by another clock.
    """
    found = _table("Poisson arrivals, all at once in turns", capacity, patience)
    for load in patience.side_by_side:
        samples, cpu_s = _in_turns(contenders, load * capacity, patience)
        _add_rows(found, load, samples, cpu_s, patience)
    console.print(found)


def _in_turns(contenders: Contenders, rate: float, patience: Patience) -> tuple[dict[str, Sample], dict[str, float]]:
    """What came of it, and the seconds of processor time that it took, by name."""
    clocks, cpu_s = {name: Clock(goes=False) for name in contenders}, dict.fromkeys(contenders, 0.0)
    files = jpegs(16)

    def load(name: str) -> Sample:
        contender, duration_s = contenders[name], patience.open_s(rate)
        requests = [contender.single(file, timeout_s=LONG_S) for file in files]
        return uvloop.run(open_loop(HOST, contender.port, requests, rate, duration_s, clock=clocks[name]))

    with ThreadPoolExecutor(len(contenders)) as pool:
        loads = {name: pool.submit(load, name) for name in contenders}
        while left := [name for name in contenders if not loads[name].done()]:
            for name in left:
                with contenders[name].awake() as contender, clocks[name].going():
                    before = contender.cpu_s()
                    wait([loads[name]], patience.turn_s)
                    cpu_s[name] += contender.cpu_s() - before
        return {name: done.result() for name, done in loads.items()}, cpu_s


def _round(contender: Contender, rate: float, patience: Patience, seed: int) -> tuple[Sample, float]:
    """What came of it, and the seconds of processor time that it took."""
    requests = [contender.single(file, timeout_s=patience.in_time_s) for file in jpegs(16)]
    with contender.awake():
        before, duration_s = contender.cpu_s(), patience.open_s(rate) / patience.rounds
        sample = uvloop.run(open_loop(HOST, contender.port, requests, rate, duration_s, seed, patience.in_time_s))
        return sample, contender.cpu_s() - before


def _table(title: str, capacity: float, patience: Patience) -> Table:
    return table(
        f"{title}; 100 % is {capacity:.3g} images/s",
        "load", "", f"in {patience.in_time_s:.2g} s, /s", "p50 ms", "p95", "p99", "p99.9", "refused", "CPU ms a request",
    )  # fmt: skip


def _add_rows(
    found: Table, load: float, samples: Mapping[str, Sample], cpu_s: Mapping[str, float], patience: Patience
) -> None:
    for name, sample in samples.items():
        cpu_ms = 1e3 * cpu_s[name] / max(len(sample.seconds), 1)
        found.add_row(f"{load:.0%}", name, *_cells(sample, patience), f"{cpu_ms:.0f}")


def _cells(sample: Sample, patience: Patience) -> Iterator[str]:
    yield f"{sample.goodput(patience.in_time_s):.3g}"
    for percent in (50, 95, 99, 99.9):
        is_known = len(sample.seconds) * round(1000 - 10 * percent) >= 1000  # or it would be the slowest alone
        yield f"{1e3 * sample.percentile(percent):.0f}" if is_known else "-"
    yield str(sum(count for status, count in sample.statuses.items() if status != 200))
