"""Which of several engines is the fastest on this machine, by a short trial."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from rankone.model.engine.base import Engine
from rankone.model.engine.check import probe

_MARGIN: Final = 0.9
"""The part of the first engine's time that another must stay under: less is noise, and would change from start to start."""


def fastest(engines: Sequence[Engine], size: int, seconds: float = 2.0) -> tuple[Engine, str]:
    """Lets engines take turns on one image, for `seconds` or one turn each, whichever is longer.

    Args:
        engines: the first is kept unless another is at least 10 % faster.
        size: of the images that they take, in pixels.
        seconds: of the trial.

    Returns:
        The fastest by its best time, which other work on the machine disturbs least, and a sentence with the times of all.
    """
    image = probe(size)[:1]
    best_s = [float("inf")] * len(engines)
    ends = time.perf_counter() + seconds
    while True:
        for position, engine in enumerate(engines):
            started = time.perf_counter()
            engine.run(image)
            best_s[position] = min(best_s[position], time.perf_counter() - started)
        if time.perf_counter() >= ends:
            break
    leader = min(range(len(engines)), key=best_s.__getitem__)
    chosen = leader if best_s[leader] < _MARGIN * best_s[0] else 0
    times = [
        f"{engine.name} {engine.precision} {took * 1e3:.1f} ms" for engine, took in zip(engines, best_s, strict=True)
    ]
    return engines[chosen], f"an image takes {', '.join(times)}"
