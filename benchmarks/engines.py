"""Which engine is fastest on this CPU, in which precision: every one that it can run, against ONNX Runtime in float32.

Photographs through the whole network, at several batch sizes; beside every speed the lowest cosine with ONNX Runtime's
embeddings. One that needs three times as long as ONNX Runtime is timed once, and not in every round.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final, get_args

import numpy as np
import numpy.typing as npt

from benchmarks.subject import bundle_of, photographs
from benchmarks.timing import Call, Timing, compare, console, faster, machine, print_table
from rankone.model.bundle import Bundle
from rankone.model.engine import Engine, EngineError, load_engine
from rankone.model.engine.base import EngineName, Images, Precision
from rankone.model.engine.check import lowest_cosine

BATCHES: Final = (1, 4)
ROUNDS: Final = 7
RIVAL: Final = "onnx float32"
_HOPELESS: Final = 3
_NO_SECOND_LOOK: Final = 10


def main(bundle: Path | None = None) -> None:
    """Prints a table for every batch size, and which engine to set."""
    threads = len(os.sched_getaffinity(0))
    with bundle_of(bundle) as opened:
        size = opened.manifest.preprocessing.size
        console.print(f"[bold]engines[/bold]: {machine()}; {size} x {size}, {threads} threads each")
        engines = runnable(opened, threads)
        for batch in BATCHES:
            timings = measure(engines, photographs(opened, batch))
            console.print(advice(timings, batch))
        for engine in engines.values():
            engine.close()


def runnable(bundle: Bundle, threads: int) -> dict[str, Engine]:
    """Every engine in every precision that it has on this CPU, by name; for the others it says why not."""
    engines = {}
    for name in get_args(EngineName):
        for precision in get_args(Precision):
            try:
                engines[_label(name, precision)] = load_engine(bundle, name, "cpu", threads, precision)
            except EngineError as error:
                console.print(f"{_label(name, precision)}: {error}")
    return engines


def measure(engines: Mapping[str, Engine], images: Images, rounds: int = ROUNDS) -> dict[str, Timing]:
    """Times all engines on one batch, prints a table, and returns the timings."""
    rival_s, expected = _timed(engines[RIVAL], images, math.inf)
    once, cosines = dict[str, float](), dict[str, str]()
    for name, engine in engines.items():
        once[name], embeddings = _timed(engine, images, _NO_SECOND_LOOK * rival_s)
        cosines[name] = f"{lowest_cosine(embeddings, expected):.6f}"
    hopeless = {name: Timing(took, took, took) for name, took in once.items() if took > _HOPELESS * once[RIVAL]}
    calls: dict[str, Call] = {
        name: partial(engine.run, images) for name, engine in engines.items() if name not in hopeless
    }
    timings = compare(calls, rounds, warm_up=1) | hopeless
    speeds = {name: f"{len(images) / timing.median:.2f}" for name, timing in timings.items()}
    title = f"batch {len(images)}, {rounds} rounds" + (f" ({', '.join(hopeless)}: one)" if hopeless else "")
    print_table(title, timings, RIVAL, faster, {"images/s": speeds, "cosine": cosines})
    return timings


def advice(timings: Mapping[str, Timing], batch: int) -> str:
    """The fastest, and what to set for it."""
    best = min(timings, key=lambda name: timings[name].median)
    engine, precision = best.split()
    ratio = "" if best == RIVAL else f", {faster(timings[best].median / timings[RIVAL].median)} than {RIVAL}"
    return f"fastest at batch {batch}: {best}{ratio}: RANKONE_ENGINE={engine} RANKONE_PRECISION={precision}"


def _timed(engine: Engine, images: Images, most_s: float) -> tuple[float, npt.NDArray[np.float32]]:
    """Seconds and embeddings of a second run, as the first of a size is slow; of the first if it took over `most_s`."""
    for _ in range(2):
        started = time.perf_counter()
        embeddings = engine.run(images).embedding
        took = time.perf_counter() - started
        if took > most_s:
            break
    return took, embeddings


def _label(name: str, precision: str) -> str:
    return f"{name} {precision}"
