"""How every benchmark measures: warm-up, then rivals in turn, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

console = Console(highlight=False)


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: quartiles over the rounds."""

    low: float
    median: float
    high: float


def compare(contenders: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, Timing]:
    """Times every contender once a round, in turn, after `warm_up` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in track(range(warm_up + rounds), description="measuring", transient=True):
        for name, call in contenders.items():
            started = time.perf_counter()
            call()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return {name: Timing(*statistics.quantiles(values, n=4, method="inclusive")) for name, values in seconds.items()}


def print_table(title: str, timings: Mapping[str, Timing], rival: str, note: Callable[[float], str]) -> None:
    """Milliseconds (median and quartiles) of everyone, and what `note` makes of the ratio to the rival's median."""
    table = Table(title=title, title_justify="left")
    for column in ("", "ms", "quartiles", f"against {rival}"):
        table.add_column(column, justify="left" if not column else "right")
    for name, timing in timings.items():
        ratio = "" if name == rival else note(timing.median / timings[rival].median)
        quartiles = f"{1e3 * timing.low:.2f} - {1e3 * timing.high:.2f}"
        table.add_row(name, f"{1e3 * timing.median:.2f}", quartiles, ratio)
    console.print(table)


def machine() -> str:
    """The processor, threads and versions that a figure belongs to."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    cpu = names[0] if names else platform.processor()
    return f"{cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
