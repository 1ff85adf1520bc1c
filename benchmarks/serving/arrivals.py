"""Poisson arrivals of single images at parts of the service's capacity; latency from when each was to be sent."""

from __future__ import annotations

from collections.abc import Iterator

import uvloop

from benchmarks.serving.contenders import HOST, Contender, Contenders
from benchmarks.serving.load import Sample, open_loop
from benchmarks.serving.patience import Patience
from benchmarks.subject import jpegs
from benchmarks.timing import console, table


def arrivals(contenders: Contenders, capacity: float, patience: Patience) -> None:
    """Prints the table: the contenders side by side at every load, which take turns in rounds."""
    found = table(
        f"Poisson arrivals; 100 % is {capacity:.1f} images/s",
        "load", "", f"in {patience.in_time_s:.2g} s, /s", "p50 ms", "p95", "p99", "p99.9", "refused", "CPU ms a request",
    )  # fmt: skip
    for load in patience.loads:
        samples = {name: Sample() for name in contenders}
        cpu_s = dict.fromkeys(contenders, 0.0)
        for number in range(patience.rounds):
            for name in list(contenders)[:: -1 if number % 2 else 1]:
                sample, seconds = _round(contenders[name], load * capacity, patience, seed=number)
                samples[name] += sample
                cpu_s[name] += seconds
        for name, sample in samples.items():
            cpu_ms = 1e3 * cpu_s[name] / max(len(sample.seconds), 1)
            found.add_row(f"{load:.0%}", name, *_cells(sample, patience), f"{cpu_ms:.0f}")
    console.print(found)


def _round(contender: Contender, rate: float, patience: Patience, seed: int) -> tuple[Sample, float]:
    """What came of it, and the seconds of processor time that it took."""
    requests = [contender.single(file, timeout_s=patience.in_time_s) for file in jpegs(16)]
    with contender.awake():
        before, duration_s = contender.cpu_s(), patience.open_s(rate) / patience.rounds
        sample = uvloop.run(open_loop(HOST, contender.port, requests, rate, duration_s, seed, patience.in_time_s))
        return sample, contender.cpu_s() - before


def _cells(sample: Sample, patience: Patience) -> Iterator[str]:
    yield f"{sample.goodput(patience.in_time_s):.3g}"
    for percent in (50, 95, 99, 99.9):
        is_known = len(sample.seconds) * round(1000 - 10 * percent) >= 1000  # or it would be the slowest alone
        yield f"{1e3 * sample.percentile(percent):.0f}" if is_known else "-"
    yield str(sum(count for status, count in sample.statuses.items() if status != 200))
