"""`rankone bench simulation`: the simulation beside the measured service, then at 1,000 times its rate; some minutes.

Prints the tables of docs/results/simulation.md. No number is fitted: the inputs are those of docs/results/serving.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import simpy

from benchmarks.markdown import markdown
from benchmarks.serving.arrivals import Schedule
from benchmarks.simulation.fleet import Death, Fleet
from benchmarks.simulation.loads import Outcome, alone, many
from benchmarks.simulation.replica import Fate, Machine
from rankone.service.inference.policy import BatchPolicy

SMALL: Final = Machine(sizes=(1, 4), seconds=(1 / 33.8, 4 / 35.4), decode_s=2.9e-3, own_s=0.96e-3)
"""96 x 96 on two cores."""
SMALL_PER_S: Final = 32.7
SMALL_MEASURED: Final = {
    0.25: (42, 115),
    0.5: (46, 181),
    0.75: (77, 400),
    0.9: (152, 530),
    1.0: (239, 665),
    1.5: (592, 741),
    3.0: (624, 762),
}
"""p50 and p99 in milliseconds by load."""
IN_TIME_S: Final = 0.83
"""The deadline of requests there, and here in every fleet."""
LARGE: Final = Machine(sizes=(1, 4), seconds=(1 / 1.35, 4 / 1.35), decode_s=4e-3, own_s=1.32e-3)
"""448 x 448 on two cores."""
LARGE_PER_S: Final = 1.35
LARGE_MEASURED: Final = {0.5: (765, 2160), 0.75: (880, 3844), 0.9: (1274, 4252), 1.0: (1549, 5652)}

TIMES: Final = 1000
_LARGE_LEAST_S: Final = 111.0
_LARGE_ARRIVALS: Final = {0.5: 160, 0.75: 160, 0.9: 120, 1.0: 120}
"""Expected by load; with seed 0 there were 143, 143, 115 and 131."""
_DRAWS: Final = 20
_NO_DEADLINE_S: Final = 1e6
_LEAD_S: Final = 1.0
"""At the beginning of a fleet's load, not counted."""
_LOAD_S: Final = 3.0
_BALANCERS: Final = 16
_REPLICAS: Final = (1000, 1020, 1050, 1110, 1250, 1500, 2000)
FLEETS: Final = {2: 300.0, 4: 300.0, 10: 200.0, 100: 60.0, 1250: 8.0}
"""Seconds of load, by replicas: shorter for large fleets, which have more requests."""
_START_S: Final = 30.0
_LOAD: Final = 0.8


def main() -> None:
    """Prints every table."""
    for table in (small, large, batches, scaled, deaths):
        print(table(), flush=True)


def percent(share: float, form: str = ".0f") -> str:
    """In per cent, without a sign before zero."""
    return f"{100 * share + 0.0:{form}} %".replace("-0 ", "+0 ")


def small() -> str:
    """Beside the measured service at 96 x 96, which had the same arrivals."""
    schedule, rows = Schedule.of(IN_TIME_S / 25), list[Sequence[str]]()
    for load, measured in SMALL_MEASURED.items():
        rate = load * SMALL_PER_S
        duration_s = max(schedule.round_s, schedule.num_requests / rate / schedule.rounds)
        rounds = [alone(SMALL, rate, duration_s, IN_TIME_S, seed) for seed in range(schedule.rounds)]
        found = sum(rounds[1:], rounds[0])
        rows.append((percent(load), *_beside(measured, [1e3 * found.percentile(point) for point in (50, 99)])))
    return markdown(_BESIDE, rows)


def large() -> str:
    """Beside the measured service at 448 x 448, which had the same arrivals."""
    rows = list[Sequence[str]]()
    for load, measured in LARGE_MEASURED.items():
        rate = load * LARGE_PER_S
        found = alone(LARGE, rate, max(_LARGE_LEAST_S, _LARGE_ARRIVALS[load] / rate), _NO_DEADLINE_S)
        rows.append((percent(load), *_beside(measured, [1e3 * found.percentile(point) for point in (50, 99)])))
    return markdown(_BESIDE, rows)


_BESIDE: Final = ("load", "p50 ms, measured", "simulated", "error", "p99 ms, measured", "simulated", "error")


def _beside(measured: Sequence[float], simulated: Sequence[float]) -> Iterable[str]:
    for one, other in zip(measured, simulated, strict=True):
        yield from (f"{one:,.0f}", f"{other:,.0f}", percent(other / one - 1, "+.0f"))


def batches() -> str:
    """One service with batches of up to one, two and four images: p50 / p99 in milliseconds."""
    rows = list[Sequence[str]]()
    for name, machine, per_s in (("96 x 96", SMALL, SMALL_PER_S), ("448 x 448", LARGE, LARGE_PER_S)):
        for load in (0.5, 0.75, 0.9):
            rate, cells = load * per_s, list[str]()
            for size in (1, 2, 4):
                limited = replace(machine, policy=BatchPolicy(size))
                runs = [alone(limited, rate, 500 / rate, _NO_DEADLINE_S, seed) for seed in range(_DRAWS)]
                found = sum(runs[1:], runs[0])
                cells.append(" / ".join(f"{1e3 * found.percentile(point):,.0f}" for point in (50, 99)))
            rows.append((name, percent(load), *cells))
    return markdown(("network", "load", "one image", "up to 2", "up to 4 (the default)"), rows, num_names=2)


def scaled() -> str:
    """Fleets under 1,000 times the measured rate."""
    rows = list[Sequence[str]]()
    rate = TIMES * SMALL_PER_S
    for num_replicas in _REPLICAS:
        row = [f"{num_replicas:,}", percent(TIMES / num_replicas)]
        for num_balancers in (1, _BALANCERS):
            fleet = Fleet(simpy.Environment(), SMALL, num_replicas, num_balancers)
            found = many(fleet, rate, _LOAD_S, IN_TIME_S)
            row += [f"{1e3 * found.percentile(point, _LEAD_S):.0f}" for point in (50, 99)]
            row.append(percent(found.share(Fate.REFUSED, Fate.LATE), ".1f"))
        rows.append(row)
    columns = ("p50 ms", "p99 ms", "not answered")
    more = [f"{name}, {_BALANCERS} balancers" for name in columns]
    return markdown(("replicas", "load", *(f"{name}, one balancer" for name in columns), *more), rows)


def deaths() -> str:
    """One death in fleets at 80 % load: of a process, and of a machine, which is silent."""
    rows = list[Sequence[str]]()
    for num_replicas, duration_s in FLEETS.items():
        for is_silent in (False, True):
            rows.append(death(num_replicas, duration_s, is_silent=is_silent))
    head = (
        "replicas",
        "what dies",
        "p99 ms before",
        "p99 ms without it",
        "refused without it",
        "lost",
        "lost to clients that try again",
    )
    return markdown(head, rows, num_names=2)


def death(num_replicas: int, duration_s: float, *, is_silent: bool) -> Sequence[str]:
    """The row of one fleet."""
    ending = Death(duration_s / 2, is_silent=is_silent, start_s=_START_S)
    rate = _LOAD * SMALL_PER_S * num_replicas
    fleet = Fleet(simpy.Environment(), SMALL, num_replicas)
    found = many(fleet, rate, duration_s, IN_TIME_S, ending)
    until_s = min(duration_s, ending.at_s + _START_S)
    without = Outcome([one for one in found.requests if ending.at_s <= one.arrived_at < until_s])
    return (
        f"{num_replicas:,}",
        "the machine" if is_silent else "the process",
        f"{1e3 * found.percentile(99, _LEAD_S, ending.at_s):.0f}",
        f"{1e3 * without.percentile(99):.0f}",
        percent(without.share(Fate.REFUSED, Fate.LATE), ".1f"),
        str(fleet.num_lost_once),
        str(found.fates[Fate.LOST]),
    )
