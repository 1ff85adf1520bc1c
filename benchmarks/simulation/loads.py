"""Poisson arrivals at a simulated service or fleet, and what became of the requests."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import simpy

from benchmarks.simulation.fleet import Death, Fleet
from benchmarks.simulation.replica import Fate, Machine, Process, Replica, Request


@dataclass(frozen=True)
class Outcome:
    """The ended requests of a load, in the order of their ends."""

    requests: Sequence[Request]
    num_arrived: int

    @property
    def fates(self) -> Counter[Fate | None]:
        """Requests by what became of them."""
        return Counter(request.fate for request in self.requests)

    def percentile(self, percent: float, since_s: float = 0.0, until_s: float = float("inf")) -> float:
        """Latency in seconds of the answered requests that arrived between these times; NaN if there is none."""
        seconds = [
            request.seconds
            for request in self.requests
            if request.fate is Fate.ANSWERED and since_s <= request.arrived_at < until_s
        ]
        return float(np.percentile(seconds, percent)) if seconds else float("nan")

    def share(self, *fates: Fate) -> float:
        """Requests that ended so, of all."""
        return sum(self.fates[fate] for fate in fates) / max(len(self.requests), 1)

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome([*self.requests, *other.requests], self.num_arrived + other.num_arrived)


def alone(
    machine: Machine, rate: float, duration_s: float, in_time_s: float, seed: int = 0, num_images: int = 1
) -> Outcome:
    """One service, with the arrivals of `benchmarks.serving.load.open_loop`: the same for the same seed."""
    env, ended = simpy.Environment(), list[Request]()
    chance = random.Random(seed)  # noqa: S311 - arrivals
    replica = Replica(env, machine)
    at, num_arrived = chance.expovariate(rate), 0
    while at < duration_s:
        request = Request(at, at + in_time_s, num_images, on_end=ended.append)
        env.process(_send(env, replica, request))
        at, num_arrived = at + chance.expovariate(rate), num_arrived + 1
    env.run()
    return Outcome(ended, num_arrived)


def many(fleet: Fleet, rate: float, duration_s: float, in_time_s: float, death: Death | None = None) -> Outcome:
    """A fleet; ends when all requests have."""
    if death is not None:
        fleet.suffer(death)
    arrivals = partial(_arrive, fleet, rate, duration_s, in_time_s)
    counted = fleet.env.process(arrivals())
    num_arrived = cast(int, fleet.env.run(counted))
    fleet.env.run()
    return Outcome(fleet.ended, num_arrived)


def _send(env: simpy.Environment, replica: Replica, request: Request) -> Process:
    yield env.timeout(request.arrived_at)
    replica.submit(request)


def _arrive(fleet: Fleet, rate: float, duration_s: float, in_time_s: float) -> Generator[simpy.Event, Any, int]:
    chance, env, num_arrived = random.Random(fleet.seed), fleet.env, 0  # noqa: S311 - arrivals
    at = chance.expovariate(rate)
    while at < duration_s:
        yield env.timeout(at - env.now)
        fleet.submit(Request(env.now, env.now + in_time_s))
        at, num_arrived = at + chance.expovariate(rate), num_arrived + 1
    return num_arrived
