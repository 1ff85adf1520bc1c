"""The tables of one data set in a directory; every measurement is a file, written when it is done.

rows/<setting>.json    a trained and measured network; tables that share a setting share the file
costs/<names>.json     FLOPs and times of all contenders of a table, from one run
work/                  the network in training, with its checkpoint
table-<name>.md, .png  the tables
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, RootModel

from benchmarks import normalization
from benchmarks.paper.measure import Measured, Workshop, kept
from benchmarks.paper.plan import Plan, Setting, Table
from benchmarks.paper.tables import TABLES, check_names
from benchmarks.resources import count_flops
from benchmarks.timing import compare, machine
from rankone.training.processes import StopRequest


class Cost(BaseModel):
    """The cost of one contender, forward, in float32."""

    contender: str
    flops: int
    """Of one image; products and decompositions, see `benchmarks.resources`."""
    batch: int
    locations: int
    channels: int
    low_ms: float
    median_ms: float
    high_ms: float
    """Quartiles of the time of a batch."""
    rounds: int
    device: str
    machine: str


class _Costs(RootModel[list[Cost]]):
    """Of all contenders of a table."""


@dataclass(frozen=True)
class Filled:
    """A table with its measurements."""

    name: str
    table: Table
    plan: Plan
    measured: Mapping[str, list[Measured]]
    """By the row's title, one a seed."""
    costs: Mapping[str, Cost]
    """By contender."""
    solved: Mapping[str, list[Measured]] = field(default_factory=dict)
    """As `measured`, by the table's second solver of phase 1, if it has one."""


class Book:
    """The directory described above."""

    def __init__(self, path: Path, plan: Plan, stop: StopRequest) -> None:
        self._path, self._plan = path, plan
        self._workshop = Workshop(path / "work", stop, device=plan.device, workers=plan.workers)

    def measure(self, names: Sequence[str]) -> Iterator[str]:
        """Measures the missing rows of these tables, and yields a line for each row.

        Raises:
            TableError: an unknown table, or a measurement on disk that cannot be read.
            Interrupted: finished rows are on disk; the same call resumes.
        """
        check_names(names)
        for seed in self._plan.seeds:  # the outer loop, so that a frozen backbone runs once for all tables
            for name in names:
                for title, solver, measured in self._rows(TABLES[name], seed):
                    accuracy = f"accuracy {measured.metrics['top1']:.3f} ({measured.seconds:.0f} s)"
                    how = "" if solver is None else f", {solver}"
                    yield f"table {name}, {title}, seed {seed}{how}: {accuracy}"

    def fill(self, name: str) -> Filled:
        """The table with its measurements; what is missing is measured. Raises the same errors."""
        check_names([name])
        table, plan = TABLES[name], self._plan
        found: dict[str | None, dict[str, list[Measured]]] = {}
        for seed in plan.seeds:
            for title, solver, one in self._rows(table, seed):
                found.setdefault(solver, {}).setdefault(title, []).append(one)
        measured, *others = found.values()
        return Filled(name, table, plan, measured, self._costs(table), *others)

    def _rows(self, table: Table, seed: int) -> Iterator[tuple[str, str | None, Measured]]:
        """Title, solver and measurement of every row, by every solver of the table."""
        plan = self._plan
        for row in table.rows:
            for solver in table.solvers or (None,):
                setting = Setting.of(table, row, plan.recipe, plan.data, seed, fast=plan.fast, solver=solver)
                yield row.title, solver, self._workshop.measured(setting, self._path / "rows" / f"{setting.key}.json")

    def _costs(self, table: Table) -> dict[str, Cost]:
        names = [row.contender for row in table.rows if row.contender is not None]
        if not names:
            return {}
        plan, slug = self._plan, "-".join(name.replace(" ", "_") for name in names)
        path = self._path / "costs" / f"{slug}-batch-{plan.batch}-{plan.device}-rounds-{plan.rounds}.json"
        costs = kept(path, _Costs, lambda: _measured_costs(names, plan))
        return {cost.contender: cost for cost in costs.root}


def _measured_costs(names: Sequence[str], plan: Plan) -> _Costs:
    """The named contenders, timed in turn."""
    one, batch = (normalization.contenders(count, plan.device) for count in (1, plan.batch))
    timings = compare({name: batch[name] for name in names}, plan.rounds, warm_up=1, device=plan.device)
    costs = [
        Cost(
            contender=name,
            flops=count_flops(one[name]),
            batch=plan.batch,
            locations=normalization.LOCATIONS,
            channels=normalization.CHANNELS,
            low_ms=1e3 * timing.low,
            median_ms=1e3 * timing.median,
            high_ms=1e3 * timing.high,
            rounds=plan.rounds,
            device=plan.device,
            machine=machine(),
        )
        for name, timing in timings.items()
    ]
    return _Costs(costs)
