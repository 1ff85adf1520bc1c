"""Poisson arrivals at a simulated service or fleet, and what became of the requests."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import simpy

from benchmarks.simulation.fleet import Death, Fleet
from benchmarks.simulation.replica import Fate, Machine, Process, Request


@dataclass(frozen=True)
class Outcome:
    """The ended requests of a load, in the order of their ends."""

    requests: Sequence[Request]

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
        return Outcome([*self.requests, *other.requests])


def alone(machine: Machine, rate: float, duration_s: float, in_time_s: float, seed: int = 0) -> Outcome:
    """One service, with the arrivals of `benchmarks.serving.load.open_loop`: the same for the same seed."""
    return many(Fleet(simpy.Environment(), machine, 1, seed=seed), rate, duration_s, in_time_s)


def many(fleet: Fleet, rate: float, duration_s: float, in_time_s: float, death: Death | None = None) -> Outcome:
    """A fleet; ends when all requests have."""
    if death is not None:
        fleet.suffer(death)
    fleet.env.process(_arrive(fleet, rate, duration_s, in_time_s))
    fleet.env.run()
    return Outcome(fleet.ended)


def _arrive(fleet: Fleet, rate: float, duration_s: float, in_time_s: float) -> Process:
    chance, env = random.Random(fleet.seed), fleet.env  # noqa: S311 - arrivals
    at = chance.expovariate(rate)
    while at < duration_s:
        yield env.timeout(at - env.now)
        fleet.submit(Request(env.now, env.now + in_time_s))
        at += chance.expovariate(rate)
