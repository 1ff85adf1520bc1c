"""Many replicas behind load balancers that send each request to a replica with the fewest open ones, and deaths of replicas.

A process that dies refuses connections: the balancer notices at once, and only requests in work are lost. A machine that
dies is silent: requests are sent to it until the balancer's health check has failed, and nobody hears of them before.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Final

import simpy

from benchmarks.simulation.replica import Fate, Machine, Process, Replica, Request

MAX_TRIES: Final = 3
"""Of a client whose answer was lost, and who sends the request again."""


class LeastConnections:
    """Chooses among the replicas with the fewest open requests, by chance; knows only of requests that it has sent."""

    def __init__(self, replicas: list[int], chance: random.Random) -> None:
        self._chance = chance
        self._levels: list[list[int]] = [list(replicas)]
        """Replicas by their number of open requests."""
        self._where = {replica: (0, at) for at, replica in enumerate(replicas)}

    def add(self, replica: int) -> None:
        """A replica without open requests."""
        self._insert(replica, 0)

    def remove(self, replica: int) -> None:
        """Sends it nothing more."""
        self._take(replica)

    def choose(self) -> int | None:
        """A replica, which now has one more open request; None without any."""
        for level, replicas in enumerate(self._levels):
            if replicas:
                replica = replicas[int(self._chance.random() * len(replicas))]
                self._take(replica)
                self._insert(replica, level + 1)
                return replica
        return None

    def ended(self, replica: int) -> None:
        """A request that was sent there has ended."""
        if replica in self._where:
            self._insert(replica, self._take(replica) - 1)

    def _take(self, replica: int) -> int:
        level, at = self._where.pop(replica)
        last = self._levels[level].pop()
        if last != replica:
            self._levels[level][at] = last
            self._where[last] = level, at
        return level

    def _insert(self, replica: int, level: int) -> None:
        while len(self._levels) <= level:
            self._levels.append([])
        self._where[replica] = level, len(self._levels[level])
        self._levels[level].append(replica)


@dataclass(frozen=True)
class Death:
    """`count` replicas end at `at_s`.

    Args:
        at_s: when.
        count: how many.
        is_silent: the machine is gone, not only the process.
        notice_s: until the health check of the balancers has failed, for a silent one.
        start_s: until a replica serves again in its place.
    """

    at_s: float
    count: int = 1
    is_silent: bool = False
    notice_s: float = 6.0
    start_s: float = 30.0


@dataclass
class Fleet:
    """`num_replicas` services behind `num_balancers` balancers, which take requests in turn.

    Args:
        env: the simulation.
        machine: of every replica.
        num_replicas: services.
        num_balancers: each counts its own connections only.
        seed: of all that happens by chance.
    """

    env: simpy.Environment
    machine: Machine
    num_replicas: int
    num_balancers: int = 1
    seed: int = 0
    num_lost_once: int = 0
    """Answers that were lost, before clients tried again."""

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)  # noqa: S311 - arrivals
        self._replicas = [Replica(self.env, self.machine) for _ in range(self.num_replicas)]
        self._silent: dict[int, list[Request]] = {}
        numbers = list(range(self.num_replicas))
        self._balancers = [LeastConnections(numbers, self._chance) for _ in range(self.num_balancers)]
        self._turns = cycle(self._balancers)
        self.ended: list[Request] = []

    @property
    def num_images(self) -> int:
        """Images in work."""
        return sum(replica.num_images for replica in self._replicas)

    def submit(self, request: Request) -> None:
        """Sends a request to a replica."""
        balancer = next(self._turns)
        number = balancer.choose()
        if number is None:
            request.fate, request.ended_at = Fate.REFUSED, self.env.now
            self.ended.append(request)
            return
        request.on_end = self._on_end(balancer, number)
        if number in self._silent:
            self._silent[number].append(request)
        else:
            self._replicas[number].submit(request)

    def suffer(self, death: Death) -> None:
        """Lets replicas die and return."""
        for number in range(death.count):
            self.env.process(self._die(number, death))

    def _on_end(self, balancer: LeastConnections, number: int) -> Callable[[Request], None]:
        def end(request: Request) -> None:
            balancer.ended(number)
            if request.fate is Fate.LOST:
                self.num_lost_once += 1
                if request.num_tries < MAX_TRIES and self.env.now < request.deadline:
                    request.fate, request.num_tries = None, request.num_tries + 1
                    self.submit(request)
                    return
            self.ended.append(request)

        return end

    def _die(self, number: int, death: Death) -> Process:
        yield self.env.timeout(death.at_s)
        waiting = list[Request]()
        if death.is_silent:
            waiting = self._silent[number] = self._replicas[number].abandon()
            yield self.env.timeout(death.notice_s)
        for balancer in self._balancers:
            balancer.remove(number)
        self._silent.pop(number, None)
        self._replicas[number].die()
        for request in waiting:
            request.fate, request.ended_at = Fate.LOST, self.env.now
            request.on_end(request)
        yield self.env.timeout(death.start_s)
        self._replicas[number] = Replica(self.env, self.machine)
        for balancer in self._balancers:
            balancer.add(number)
