"""The tables of one data set in one directory: every measurement a JSON file of its own, written when it is done.

rows/<setting>.json   a network trained and measured; tables that share a setting share the file
costs/<batch>.json    FLOPs and times, all contenders of a table from one run of so many rounds
work/                 the network in training, with its checkpoint; gone when it is measured
table-<name>.md, .png what is made of them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from benchmarks.paper.cost import Cost, costs
from benchmarks.paper.measure import Measured, Setting, Workshop
from benchmarks.paper.plan import TABLES, Row, Table
from benchmarks.timing import machine
from rankone.model.errors import RankoneError
from rankone.training.checkpoint import training_libraries
from rankone.training.data import DataSet
from rankone.training.processes import StopRequest
from rankone.training.recipe import Recipe

_COSTS = TypeAdapter(list[Cost])


class TableError(RankoneError, ValueError):
    """A table that is not known, or a measurement that cannot be read; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be measured.

    Attributes:
        recipe: how every network is trained, but for what its row and seed change.
        data: the data set.
        seeds: every row is trained once a seed.
        fast: whether the tables' shortened recipes hold.
        batch: images a batch whose time is measured.
        rounds: times that it is measured.
        device: where networks are trained and times are measured.
        workers: processes that load images.

    Raises:
        TableError: no seed, or an empty batch.
    """

    recipe: Recipe
    data: DataSet
    seeds: Sequence[int]
    fast: bool
    batch: int = 32
    rounds: int = 5
    device: str = "cpu"
    workers: int = 0

    def __post_init__(self) -> None:
        if not self.seeds:
            raise TableError("at least one seed is needed")
        if self.batch < 1:
            raise TableError(f"a batch whose time is measured has at least one image, not {self.batch}")


@dataclass(frozen=True)
class Filled:
    """A table with what was measured for each of its rows."""

    name: str
    table: Table
    plan: Plan
    measured: Mapping[str, list[Measured]]
    """By the row's title, one a seed."""
    costs: Mapping[str, Cost]
    """By contender."""


class Book:
    """The directory; see the head of this module."""

    def __init__(self, path: Path, plan: Plan, stop: StopRequest) -> None:
        self._path, self._plan = path, plan
        self._workshop = Workshop(path / "work", stop, device=plan.device, workers=plan.workers)

    def fill(self, names: Sequence[str], tell: Callable[[str], None]) -> list[Filled]:
        """Measures what is missing for these tables; `tell` hears of every row.

        Raises:
            TableError: no such table, or a measurement on disk that cannot be read.
            Interrupted: what is done is on disk, and the same call goes on from there.
        """
        check_names(names)
        for seed in self._plan.seeds:  # the outer loop: a frozen backbone is run once for all tables
            for name in names:
                for row in TABLES[name].rows:
                    tell(f"table {name}, {row.title}, seed {seed}: {_summary(self._measured(TABLES[name], row, seed))}")
        return [self._filled(name) for name in names]

    def _filled(self, name: str) -> Filled:
        table = TABLES[name]
        measured = {row.title: [self._measured(table, row, seed) for seed in self._plan.seeds] for row in table.rows}
        return Filled(name, table, self._plan, measured, self._costs(table))

    def _measured(self, table: Table, row: Row, seed: int) -> Measured:
        setting = Setting.of(table, row, self._plan.recipe, self._plan.data, seed, fast=self._plan.fast)
        path = self._path / "rows" / f"{setting.key}.json"
        if not path.exists():
            _write(path, self._workshop.measure(setting, machine(), training_libraries()).model_dump_json(indent=2))
        return _read(path)

    def _costs(self, table: Table) -> dict[str, Cost]:
        names = [row.contender for row in table.rows if row.contender is not None]
        if not names:
            return {}
        plan = self._plan
        slug = "-".join(name.replace(" ", "_") for name in names)
        path = self._path / "costs" / f"{slug}-batch-{plan.batch}-{plan.device}-rounds-{plan.rounds}.json"
        if not path.exists():
            found = costs(names, plan.batch, plan.rounds, plan.device, machine())
            _write(path, _COSTS.dump_json(found, indent=2).decode())
        try:
            return {cost.contender: cost for cost in _COSTS.validate_json(path.read_bytes())}
        except ValidationError as error:
            raise TableError(f"{path} cannot be read; remove it and run again: {error}") from error


def check_names(names: Sequence[str]) -> None:
    """Raises TableError for a table that is not there."""
    for name in names:
        if name not in TABLES:
            raise TableError(f"there is no table {name!r}; there are: {', '.join(TABLES)}")


def _summary(measured: Measured) -> str:
    return f"accuracy {measured.metrics['top1']:.3f} ({measured.seconds:.0f} s)"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def _read(path: Path) -> Measured:
    try:
        return Measured.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise TableError(f"{path} cannot be read; remove it and run again: {error}") from error
