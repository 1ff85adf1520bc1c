"""The engine's first runs: memory is taken and kernels are chosen before the first request, and its speed is learnt."""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from rankone.model.engine import Engine
from rankone.model.engine.base import Images
from rankone.service.batching.lane import Lane
from rankone.service.batching.latency import LatencyModel
from rankone.service.batching.sizes import Sizes

_MIN_SECONDS: Final = 1e-9
"""A clock that did not move between two readings still times something."""
_ROUNDS: Final = 3
_MOST_S: Final = 5.0
"""After that no other round is begun: nobody waits a minute for a slow network to be timed well."""


async def warm_up(engine: Engine, lane: Lane, sizes: Sizes, shape: tuple[int, ...]) -> LatencyModel:
    """Runs the engine at the sizes it will see, and times it: the best of some rounds, as other work can only add to it.

    Raises:
        EngineError: what the engine raises.
    """
    warmed = sizes.to_warm()
    batches = [np.zeros((size, *shape), np.float32) for size in warmed]
    for pixels in batches:
        await lane(engine.run, pixels)
    rounds, started = list[list[float]](), time.perf_counter()
    while not rounds or (len(rounds) < _ROUNDS and time.perf_counter() - started < _MOST_S):
        rounds.append([await _seconds(engine, lane, pixels) for pixels in batches])
    return LatencyModel(warmed, [min(of_size) for of_size in zip(*rounds, strict=True)])


async def _seconds(engine: Engine, lane: Lane, pixels: Images) -> float:
    started = time.perf_counter()
    await lane(engine.run, pixels)
    return max(time.perf_counter() - started, _MIN_SECONDS)
