"""The simulation: against the service's own code in simulated time, closed forms, and what was measured."""

from __future__ import annotations

import asyncio
import random
import selectors
import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any, cast

import numpy as np
import pytest
import simpy

from benchmarks.simulation import report
from benchmarks.simulation.fleet import Death, Fleet, LeastConnections
from benchmarks.simulation.loads import Outcome, alone, many
from benchmarks.simulation.replica import Fate, Machine, Replica, Request
from rankone.model.engine import Engine, Outputs
from rankone.service.errors import DeadlinePassed
from rankone.service.inference import decode_pool
from rankone.service.inference.batcher import Batcher
from rankone.service.inference.decode_pool import DecodePool
from rankone.service.inference.engine_thread import EngineThread
from rankone.service.inference.inference import Admission, Inference, QueueFull
from rankone.service.inference.policy import BatchPolicy, LatencyModel
from rankone.service.inference.shared import CpuArbiter, Slots
from rankone.service.observe.context import RequestContext, enter
from rankone.service.observe.metrics import Metrics
from tests.pages import ROOT

PAGE = (ROOT / "docs" / "results" / "simulation.md").read_text(encoding="utf-8")
SERVING = (ROOT / "docs" / "results" / "serving.md").read_text(encoding="utf-8")
PLAIN = Machine((1,), (0.03,), policy=BatchPolicy(1), max_queue=10**6)
"""One image at a time, which takes 30 ms, and nothing else."""


class Clock(selectors.DefaultSelector):
    """A selector that does not wait: the time passes at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing will ever happen"
        self.now += timeout
        return super().select(0)


class Decoder:
    """In place of a decode process."""

    seconds = 0.0

    def __init__(self, *_: object) -> None:
        self.process = None
        self.ended = asyncio.get_running_loop().create_future()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def decode(self, *_: object, **__: object) -> None:
        await asyncio.sleep(self.seconds)


class Thread:
    """In place of the engine's thread."""

    is_alive = True

    def __init__(self, machine: Machine) -> None:
        self._machine, self._model = machine, LatencyModel(machine.sizes, machine.seconds)

    async def run(self, _: Callable[..., Any], images: list[Any]) -> Outputs:
        await asyncio.sleep(self._model.predict(len(images)) + self._machine.own_s * len(images))
        return Outputs(np.zeros((len(images), 1), np.float32))


async def through_the_service(machine: Machine, arrivals: list[Request]) -> None:
    """Sets the fate and the end of every request as the service's own code has them."""
    slots, arbiter = Slots(2 * machine.policy.max_batch + machine.workers, (3, 2, 2)), CpuArbiter(machine.pause_s)
    latency, metrics = LatencyModel(machine.sizes, machine.seconds), Metrics()
    thread, engine = cast(EngineThread, Thread(machine)), cast(Engine, Thread(machine))
    batcher = Batcher(engine, thread, slots, machine.policy, latency, arbiter, metrics)
    pool = DecodePool(cast(Any, None), slots, machine.workers, arbiter, batcher.put, lambda: None)
    await pool.start()
    inference = Inference(Admission(machine.max_queue, batcher.images_per_s), pool, batcher)

    async def ask(request: Request) -> None:
        await asyncio.sleep(request.arrived_at - time.perf_counter())
        enter(RequestContext("", deadline=request.deadline))
        try:
            async with asyncio.timeout(request.deadline - time.perf_counter()):
                await inference([b""] * request.num_images)
            request.fate = Fate.ANSWERED
        except QueueFull:
            request.fate = Fate.REFUSED
        except (DeadlinePassed, TimeoutError):
            request.fate = Fate.LATE
        request.ended_at = time.perf_counter()

    async with asyncio.TaskGroup() as tasks:
        for request in arrivals:
            tasks.create_task(ask(request))
    await pool.close()
    await batcher.close()
    slots.close()


def in_simulated_time(monkeypatch: pytest.MonkeyPatch, machine: Machine, arrivals: list[Request]) -> None:
    clock = Clock()
    loop = asyncio.SelectorEventLoop(clock)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "time", lambda: clock.now)
        patched.setattr(time, "perf_counter", lambda: clock.now)
        patched.setattr(decode_pool, "DecodeProcess", Decoder)
        patched.setattr(Decoder, "seconds", machine.decode_s)
        loop.run_until_complete(through_the_service(machine, arrivals))
        loop.close()


def poisson(rate: float, count: int, in_time_s: float, sizes: tuple[int, ...] = (1,)) -> list[Request]:
    chance, at, arrivals = random.Random(0), 0.0, []
    for _ in range(count):
        at += chance.expovariate(rate)
        arrivals.append(Request(at, at + in_time_s, chance.choice(sizes)))
    return arrivals


def simulated(machine: Machine, arrivals: list[Request]) -> Replica:
    env = simpy.Environment()
    replica = Replica(env, machine)

    def send(request: Request) -> Any:
        yield env.timeout(request.arrived_at)
        replica.submit(request)

    for request in arrivals:
        env.process(send(request))
    env.run()
    return replica


MACHINES: Mapping[str, Machine] = {
    "CPU": report.SMALL,
    "GPU": Machine((1, 16, 32), (1.4e-3, 10e-3, 18.6e-3), 2e-3, 0.0, 16, BatchPolicy(16, (1, 2, 4, 8, 16)), 256, 0.0),
    "window": Machine((1, 4), (0.03, 0.1), 3.1e-3, policy=BatchPolicy(4, window_s=0.02)),
    "long": Machine((1, 4), (0.8, 3.0), 4e-3, 1e-3),
}


@pytest.mark.parametrize("load", [0.4, 0.9, 2.0])
@pytest.mark.parametrize("name", MACHINES)
def test_single_images_end_as_in_the_service(monkeypatch: pytest.MonkeyPatch, name: str, load: float) -> None:
    """To the microsecond, one by one."""
    real, model, _ = both(monkeypatch, MACHINES[name], load, (1,))
    assert [request.fate for request in model] == [request.fate for request in real]
    assert [request.ended_at for request in model] == pytest.approx([request.ended_at for request in real], abs=1e-6)


@pytest.mark.parametrize("load", [0.4, 0.9, 2.0])
@pytest.mark.parametrize("name", MACHINES)
def test_larger_requests_fare_as_in_the_service(monkeypatch: pytest.MonkeyPatch, name: str, load: float) -> None:
    """Images that are ready at the same moment may change places, and then one request is refused in place of another."""
    real, model, replica = both(monkeypatch, MACHINES[name], load, (1, 2, 5))
    fates = [Counter(request.fate for request in requests) for requests in (real, model)]
    assert all(abs(fates[0][fate] - fates[1][fate]) <= 3 for fate in Fate)
    for percent in (50, 90):
        one, other = (Outcome(requests).percentile(percent) for requests in (real, model))
        assert other == pytest.approx(one, rel=0.15)
    assert replica.num_images == 0


def both(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, load: float, sizes: tuple[int, ...]
) -> tuple[list[Request], list[Request], Replica]:
    """The same requests to the service's code and to the simulation."""
    rate = load * machine.sizes[-1] / machine.seconds[-1] / (sum(sizes) / len(sizes))
    real, model = (poisson(rate, 300, 50 * machine.seconds[0], sizes) for _ in range(2))
    in_simulated_time(monkeypatch, machine, real)
    return real, model, simulated(machine, model)


@pytest.mark.parametrize("load", [0.3, 0.9, 1.1])
def test_one_image_at_a_time_waits_as_lindley_says(load: float) -> None:
    """Each waits for what is left of the one before it."""
    found = alone(PLAIN, load / 0.03, 60, 1e6)
    free_at = 0.0
    for request in found.requests:
        free_at = max(free_at, request.arrived_at) + 0.03
        assert request.ended_at == pytest.approx(free_at, abs=1e-9)


def test_the_mean_wait_is_that_of_an_m_d_1_queue() -> None:
    """Pollaczek and Khinchine: rho D / 2 (1 - rho)."""
    found = alone(PLAIN, 0.5 / 0.03, 900, 1e6)
    mean_s = np.mean([request.seconds for request in found.requests]) - 0.03
    assert mean_s == pytest.approx(0.5 * 0.03 / (2 * (1 - 0.5)), rel=0.05)


def test_the_measured_capacity_is_the_simulated_one() -> None:
    """32.7 images/s, a figure that is no input: within 3 %."""
    found = alone(report.SMALL, 100, 60, report.IN_TIME_S)
    assert "| rankone, 1 image | 32.7 |" in SERVING
    steady = [one for one in found.requests if one.fate is Fate.ANSWERED and 10 <= one.ended_at < 60]
    assert len(steady) / 50 == pytest.approx(report.SMALL_PER_S, rel=0.03)


def test_the_page_has_the_tables_that_are_held_against_measured_ones() -> None:
    assert report.small() in PAGE
    assert report.large() in PAGE
    for load, (p50, p99) in report.SMALL_MEASURED.items():
        row = next(line for line in SERVING.splitlines() if line.startswith(f"| {load:.0%} |".replace("%", " %")))
        assert f"| {p50} |" in row
        assert f"**{p99}**" in row


@pytest.mark.parametrize("is_silent", [False, True])
def test_the_page_has_what_a_death_costs_two_services(is_silent: bool) -> None:
    row = report.death(2, report.FLEETS[2], is_silent=is_silent)
    assert f"| {' | '.join(row)} |\n" in PAGE


def test_p99_is_within_15_percent_of_every_measured_one_at_96() -> None:
    rows = [row.split(" | ") for row in report.small().splitlines()[2:]]
    assert len(rows) == 7
    for row in rows:
        measured, found = float(row[4]), float(row[5])
        assert found == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("is_silent", [False, True])
@pytest.mark.parametrize("num_balancers", [1, 3])
def test_every_request_ends_once(is_silent: bool, num_balancers: int) -> None:
    """Whatever dies: answered, refused, late or lost."""
    fleet = Fleet(simpy.Environment(), report.SMALL, 6, num_balancers)
    death = Death(2.0, count=3, is_silent=is_silent, notice_s=1.0, start_s=2.0)
    rate, chance = 6 * report.SMALL_PER_S, random.Random(fleet.seed)
    found = many(fleet, rate, 8.0, report.IN_TIME_S, death)
    times = accumulate(chance.expovariate(rate) for _ in range(3000))
    num_arrived = sum(at < 8.0 for at in times)
    assert num_arrived == len(found.requests) == len({id(request) for request in found.requests}) > 1000
    assert sum(found.fates.values()) == num_arrived
    assert None not in found.fates
    assert found.fates[Fate.REFUSED] > 0  # half of the fleet is away
    assert fleet.num_lost_once >= found.fates[Fate.LOST]
    assert (found.fates[Fate.LOST] == 0) == (not is_silent)
    assert fleet.num_images == 0
    later = Outcome([request for request in found.requests if request.arrived_at > 6])
    assert later.share(Fate.ANSWERED) > 0.9  # all are back


def test_a_fleet_without_replicas_refuses() -> None:
    fleet = Fleet(simpy.Environment(), report.SMALL, 1)
    found = many(fleet, 20.0, 3.0, report.IN_TIME_S, Death(0.0, start_s=100.0))
    assert found.share(Fate.REFUSED) == 1


def test_least_connections_chooses_the_least() -> None:
    """Against a count kept by hand, while replicas come and go."""
    chance, balancer, counts = (
        random.Random(1),
        LeastConnections(list(range(9)), random.Random(2)),
        dict.fromkeys(range(9), 0),
    )
    for _ in range(5000):
        match chance.randrange(5):
            case 0 if len(counts) > 1:
                balancer.remove(gone := chance.choice(list(counts)))
                del counts[gone]
            case 1 if len(counts) < 9:
                back = next(number for number in range(9) if number not in counts)
                balancer.add(back)
                counts[back] = 0
            case 2 if busy := [number for number, count in counts.items() if count]:
                balancer.ended(done := chance.choice(busy))
                counts[done] -= 1
            case _:
                chosen = balancer.choose()
                assert chosen is not None
                assert counts[chosen] == min(counts.values())
                counts[chosen] += 1


def test_the_same_seed_gives_the_same() -> None:
    one, other = (many(Fleet(simpy.Environment(), report.SMALL, 5, seed=3), 120.0, 5.0, 0.83) for _ in range(2))
    assert [request.seconds for request in one.requests] == [request.seconds for request in other.requests]
