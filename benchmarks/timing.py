"""How every benchmark measures: warm-up, then rivals in turn, so that noise of the machine affects all of them.

A turn is one call, or the mean of as many as fit into 50 ms, so that short calls find a warm cache and running threads.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

console = Console(highlight=False)
_TURN_S = 0.05

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: quartiles over the rounds."""

    low: float
    median: float
    high: float

    def divided(self, count: int) -> Timing:
        """Of one, where the call did `count` of them."""
        return Timing(self.low / count, self.median / count, self.high / count)


@dataclass(frozen=True)
class Goal:
    """`fast` should be at least `times` as fast as `slow`."""

    fast: str
    slow: str
    times: float


def compare(contenders: Mapping[str, Call], rounds: int, warm_up: int = 2, device: str = "cpu") -> dict[str, Timing]:
    """Times every contender once a round, in turn, after `warm_up` rounds that do not count.

    On a GPU (`cuda`) by its events; on a processor (`cpu`) by the clock, or by the processor time of this process
    (`processor`), which does not count what others of a busy machine use.
    """
    now = time.process_time if device == "processor" else time.perf_counter
    clock = _seconds_on_gpu if device == "cuda" else partial(_seconds, now)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in track(range(warm_up + rounds), description="measuring", transient=True):
        for name, call in contenders.items():
            elapsed = _turn(call, clock)
            if turn >= warm_up:
                seconds[name].append(elapsed)
    return {name: Timing(*statistics.quantiles(values, n=4, method="inclusive")) for name, values in seconds.items()}


def _turn(call: Call, clock: Callable[[Call, int], float]) -> float:
    """Seconds of one call. The turn's length is by the clock: a call that waits takes hardly any processor time."""
    started = time.perf_counter()
    once = clock(call, 1)
    more = int(_TURN_S / max(time.perf_counter() - started, 1e-9))
    return clock(call, more) / more if more else once


def _seconds(now: Callable[[], float], call: Call, count: int) -> float:
    """Seconds of `count` calls together, by the clock or of all threads' processor time."""
    started = now()
    for _ in range(count):
        call()
    return now() - started


def _seconds_on_gpu(call: Call, count: int) -> float:
    started, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    started.record()
    for _ in range(count):
        call()
    ended.record()
    torch.cuda.synchronize()
    return float(started.elapsed_time(ended)) / 1e3


def print_comparison(
    title: str,
    contenders: Mapping[str, Call],
    rival: str,
    rounds: int,
    *goals: Goal,
    more: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Timing]:
    """Times the contenders and prints their table, with `more` columns, and whether the goals are met."""
    timings = compare(contenders, rounds, warm_up=1)
    print_table(title, timings, rival, faster, more)
    print_goals(timings, *goals)
    return timings


def print_table(
    title: str,
    timings: Mapping[str, Timing],
    rival: str,
    note: Callable[[float], str],
    more: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Prints milliseconds (median and quartiles), `note` of the ratio to the rival's median, and `more` columns."""
    more = more or {}
    rows = table(title, "", "ms", "quartiles", f"against {rival}", *more)
    for name, timing in timings.items():
        ratio = "" if name == rival else note(timing.median / timings[rival].median)
        quartiles = f"{1e3 * timing.low:.2f} - {1e3 * timing.high:.2f}"
        cells = (column.get(name, "") for column in more.values())
        rows.add_row(name, f"{1e3 * timing.median:.2f}", quartiles, ratio, *cells)
    console.print(rows)


def table(title: str, *columns: str) -> Table:
    """An empty table; the first column has names, the others numbers."""
    empty = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        empty.add_column(column, justify="left" if number == 0 else "right")
    return empty


def print_goals(timings: Mapping[str, Timing], *goals: Goal) -> None:
    """Prints a line for each goal: met or missed."""
    for goal in goals:
        times = timings[goal.slow].median / timings[goal.fast].median
        outcome = "met" if times >= goal.times else "missed"
        console.print(f"{goal.fast}: {times:.1f} x faster than {goal.slow} (at least {goal.times:g} x: {outcome})")


def faster(ratio: float) -> str:
    """The ratio of two times in words."""
    return f"{1 / ratio:.1f} x faster" if ratio < 1 else f"{ratio:.1f} x slower"


def megabytes(memory: Mapping[str, float]) -> dict[str, str]:
    """Bytes as megabytes, for a column."""
    return {name: f"{held / 1e6:.2f}" for name, held in memory.items()}


def machine(device: str = "cpu") -> str:
    """The processor or GPU, threads and versions."""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, {versions}"
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{[*names, platform.processor()][0]}, {torch.get_num_threads()} threads, {versions}"
