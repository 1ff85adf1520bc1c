"""Images a second when there is always more to do, in turns with the bare engine, and the processor time that each takes.

Where all processors are busy anyway, that time is what decides, and it says what a share of a second cannot: whether a
few percent are the service's or the machine's, which others take processors away from.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import uvloop

from benchmarks.serving.contenders import HOST, Contender, Contenders
from benchmarks.serving.load import closed_loop
from benchmarks.serving.patience import Patience
from benchmarks.subject import jpegs
from benchmarks.timing import console, table
from service.engine import Engine
from service.engine.base import Images

ROUNDS: Final = 8
BATCH: Final = 16
_SINGLES: Final = "one image a request"


@dataclass(frozen=True)
class Rate:
    """What was done in one turn."""

    num_images: int
    duration_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Images a second."""
        return self.num_images / self.duration_s

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of processor time an image."""
        return 1e3 * self.cpu_s / self.num_images


def bare(engine: Engine, images: Images, duration_s: float) -> Rate:
    """What the engine does by itself with this batch, one run after another, in this process."""
    engine.run(images)
    count, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < duration_s:
        engine.run(images)
        count += len(images)
    return Rate(count, time.perf_counter() - started, time.process_time() - cpu)


def saturation(
    engine: Engine, images: Images, contenders: Contenders, patience: Patience, rounds: int = ROUNDS
) -> float:
    """Prints the table; returns the images/s of the service on single ones."""
    found: dict[str, list[Rate]] = {}
    for _ in range(rounds):
        for name, rate in _round(engine, images, contenders, patience.closed_s):
            found.setdefault(name, []).append(rate)
    rival = max((name for name in found if name.startswith("engine")), key=lambda name: _median(found[name]))
    rows = table(
        f"saturated, {rounds} rounds", "", "images/s", "quartiles", f"of {rival}", "quartiles", "CPU ms an image"
    )
    for name, rates in found.items():
        parts = [100 * rate.per_s / bare.per_s for rate, bare in zip(rates, found[rival], strict=True)]
        cpu_ms = f"{statistics.median(rate.cpu_ms for rate in rates):.1f}"
        rows.add_row(name, *_spread([rate.per_s for rate in rates], ".2f"), *_spread(parts, ".1f"), cpu_ms)
    console.print(rows)
    return _median(found[f"rankone, {_SINGLES}"])


def _round(engine: Engine, images: Images, contenders: Contenders, duration_s: float) -> Iterator[tuple[str, Rate]]:
    """Each by name, and what it did."""
    files = jpegs(BATCH)
    for batch in (1, len(images)):
        yield f"engine alone, batches of {batch}", bare(engine, images[:batch], duration_s)
    for contender in contenders.values():
        with contender.awake():
            singles = [contender.single(file) for file in files]
            yield f"{contender.name}, {_SINGLES}", _served(contender, singles, BATCH, duration_s)
            if contender.name == "rankone":
                whole = [contender.batch(files)]
                yield f"rankone, {BATCH} images a request", _served(contender, whole, 2, duration_s, BATCH)


def _served(
    contender: Contender, requests: Sequence[bytes], concurrency: int, duration_s: float, num_images: int = 1
) -> Rate:
    before = contender.cpu_s()
    sample = uvloop.run(closed_loop(HOST, contender.port, requests, concurrency, duration_s))
    return Rate(num_images * len(sample.seconds), sample.duration_s, contender.cpu_s() - before)


def _median(rates: Sequence[Rate]) -> float:
    return statistics.median(rate.per_s for rate in rates)


def _spread(values: Sequence[float], form: str) -> tuple[str, str]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values)
    return f"{median:{form}}", f"{low:{form}} - {high:{form}}"
