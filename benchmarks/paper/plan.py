"""What is measured: tables as rows, rows as poolings, and the settings that a network is trained with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rankone.model.errors import RankoneError
from rankone.training.data import DataSet, limited
from rankone.training.recipe import PoolingRecipe, Recipe
from rankone.training.run import DataRecord


class TableError(RankoneError, ValueError):
    """An unknown table, an impossible plan, or a measurement that cannot be read; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table.

    Attributes:
        label: the text in its first column.
        pooling: the pooling that is trained, once for every seed.
        series: the curve it belongs to, in a table with several.
        changes: fields of the recipe that differ in this row.
        contender: what is timed, a name of `benchmarks.normalization.contenders`.
        paper: the paper's figures, by column.
    """

    label: str
    pooling: PoolingRecipe
    series: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    contender: str | None = None
    paper: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Series and label."""
        return f"{self.series} {self.label}".strip()


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table or figure of the paper.

    Attributes:
        title: its question.
        kind: what is shown of a row: accuracy; cost (accuracy, FLOPs and time); ratio of the first two singular values;
            scatter of these; curve of accuracy over epochs.
        axis: what the rows vary, for a curve over rows; None for a bar chart.
        fast: fields of the recipe that differ under `--fast`.
        solvers: of phase 1, each of which trains every row: the first one's figures are `Filled.measured`, the others stand
            beside them. None for the recipe's own.
    """

    title: str
    rows: tuple[Row, ...]
    kind: str = "accuracy"
    axis: str | None = None
    fast: Mapping[str, Any] = field(default_factory=dict)
    solvers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How tables are measured: the options of `rankone tables`, with recipe and data loaded.

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
class Setting:
    """Everything that a measurement depends on."""

    recipe: Recipe
    data: DataSet
    singular_values: bool = False

    @classmethod
    def of(
        cls, table: Table, row: Row, recipe: Recipe, data: DataSet, seed: int, *, fast: bool, solver: str | None = None
    ) -> Setting:
        """A row at a seed, which draws the weights, hashes, start vector and order of images."""
        changes = _merged(table.fast if fast else {}, row.changes)
        if solver is not None:
            changes = _merged(changes, {"phase1": {"solver": solver}})
        return cls(seeded(recipe, row.pooling, seed, changes), data, table.kind in {"ratio", "scatter"})

    @property
    def key(self) -> str:
        """A readable file name, different for every setting."""
        described = [self.recipe.model_dump(mode="json"), DataRecord.of(self.data).model_dump(), self.singular_values]
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:10]
        options = "".join(f"-{name}-{value}" for name, value in self.recipe.pooling.options.items() if name != "seed")
        return f"{self.recipe.pooling.name}{options}-seed-{self.recipe.seed}-{digest}"


def fewer(data: DataSet, images: int | None) -> DataSet:
    """At most so many images of every class in each split; all if None."""
    return data if images is None else replace(data, train=limited(data.train, images), test=limited(data.test, images))


def seeded(recipe: Recipe, pooling: PoolingRecipe, seed: int, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with this pooling, seed and changed fields; nothing is left of the recipe's own pooling."""
    if "seed" in pooling.composition.options:
        pooling = pooling.model_copy(update={"options": {**pooling.options, "seed": seed}})
    fields = _merged(recipe.model_dump(mode="json"), changes)
    return Recipe.model_validate({**fields, "pooling": pooling.model_dump(), "seed": seed})


def _merged(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with the changes, nested ones merged."""
    merged = dict(fields)
    for name, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if nested else value
    return merged
