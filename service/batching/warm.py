"""The engine's first runs: memory is taken and kernels are chosen before the first request, and its speed is learnt."""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from service.batching.lane import Lane
from service.batching.latency import LatencyModel
from service.batching.sizes import Sizes
from service.engine import Engine

_MIN_SECONDS: Final = 1e-9
"""A clock that did not move between two readings still times something."""


async def warm_up(engine: Engine, lane: Lane, sizes: Sizes, shape: tuple[int, ...]) -> LatencyModel:
    """Runs the engine at the sizes it will see, twice each, and times the second.

    Raises:
        EngineError: what the engine raises.
    """
    warmed = sizes.to_warm()
    seconds: list[float] = []
    for size in warmed:
        pixels = np.zeros((size, *shape), np.float32)
        await lane(engine.run, pixels)
        started = time.perf_counter()
        await lane(engine.run, pixels)
        seconds.append(max(time.perf_counter() - started, _MIN_SECONDS))
    return LatencyModel(warmed, seconds)
