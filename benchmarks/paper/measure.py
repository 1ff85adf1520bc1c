"""One network trained and measured for the tables, as plain data that is written when it is done."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from benchmarks.paper.features import RememberedFeatures
from benchmarks.paper.plan import Row, Table
from rankone.model.backbone import Backbone
from rankone.model.bundle import EpochRecord
from rankone.model.network import Network
from rankone.model.normalization import RankOneUpdate
from rankone.training import pipeline
from rankone.training.data import DataSet
from rankone.training.data.batches import batches, in_order
from rankone.training.fit import fit
from rankone.training.processes import Processes, Resources, StopRequest
from rankone.training.recipe import Recipe
from rankone.training.report.spectrum import singular_values as spectra
from rankone.training.run import DataRecord, Run

_BATCH_SIZE = 8


class Measured(BaseModel):
    """A trained network: what it was trained by and on, and how it did on the test images."""

    pooling: str
    seed: int
    recipe: dict[str, Any]
    data: DataRecord
    metrics: dict[str, float]
    phase1: dict[str, float] | None = None
    """The same figures of the network that phase 1 ended with; None of a recipe without phase 2, and of older files."""
    history: list[EpochRecord]
    singular_values: list[tuple[float, float, float, float]] | None
    """For every test image: the first two singular values of its local features, before and after RUN with its defaults."""
    seconds: float
    machine: str
    libraries: dict[str, str]

    @property
    def mean_ratio(self) -> float:
        """The mean of the first singular value over the second; images whose second one is 0 are left out."""
        assert self.singular_values is not None
        return _mean_ratio([(first, second) for first, second, *_ in self.singular_values])

    @property
    def mean_ratio_after(self) -> float:
        """The same after RUN."""
        assert self.singular_values is not None
        return _mean_ratio([(first, second) for *_, first, second in self.singular_values])


@dataclass(frozen=True)
class Setting:
    """Everything a measurement depends on."""

    recipe: Recipe
    data: DataSet
    singular_values: bool

    @classmethod
    def of(cls, table: Table, row: Row, recipe: Recipe, data: DataSet, seed: int, *, fast: bool) -> Setting:
        """The row of the table at this seed, which draws weights, hashes, the start vector and the order of images."""
        pooling = row.pooling
        if "seed" in pooling.composition.options:
            pooling = pooling.model_copy(update={"options": {**pooling.options, "seed": seed}})
        fields = recipe.model_dump(mode="json")
        for changes in (table.fast if fast else {}, row.changes, {"pooling": pooling.model_dump(), "seed": seed}):
            fields = _merged(fields, changes)
        return cls(Recipe.model_validate(fields), data, table.kind in {"ratio", "scatter"})

    @property
    def key(self) -> str:
        """A file name: readable, and different for every setting."""
        described = [self.recipe.model_dump(mode="json"), DataRecord.of(self.data).model_dump(), self.singular_values]
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:10]
        options = "".join(f"-{name}-{value}" for name, value in self.recipe.pooling.options.items() if name != "seed")
        return f"{self.recipe.pooling.name}{options}-seed-{self.recipe.seed}-{digest}"


class Workshop:
    """Where networks are trained one after the other; a backbone that none of them changes is run once an image."""

    def __init__(self, path: Path, stop: StopRequest, *, device: str = "cpu", workers: int = 0) -> None:
        self._path, self._stop, self._device, self._workers = path, stop, device, workers
        self._frozen: tuple[tuple[object, ...], Backbone] | None = None

    def measure(self, setting: Setting, machine: str, libraries: Mapping[str, str]) -> Measured:
        """Trains and measures; killed on the way, the same call goes on from its checkpoint.

        Raises:
            Interrupted: the checkpoint is saved.
        """
        started = time.perf_counter()
        recipe, data, path = setting.recipe, setting.data, self._path / setting.key
        network = self._network(recipe, len(data.classes))
        work = Resources(workers=self._workers, stop=self._stop, processes=Processes(torch.device(self._device)))
        state = fit(network, data, Run.start(path, recipe, data), work, report_line=lambda _: None)
        report = pipeline.measure(network, recipe, data, device=self._device, workers=self._workers)
        earlier = self._network(recipe, len(data.classes))
        before = None
        if Run.open(path).load_phase1(earlier):
            before = pipeline.measure(earlier, recipe, data, device=self._device, workers=self._workers).metrics
        values = singular_values(network, recipe, data, self._device) if setting.singular_values else None
        shutil.rmtree(path)
        return Measured(
            pooling=recipe.pooling.name,
            seed=recipe.seed,
            recipe=recipe.model_dump(mode="json"),
            data=DataRecord.of(data),
            metrics=report.metrics,
            phase1=before,
            history=state.history,
            singular_values=values,
            seconds=time.perf_counter() - started,
            machine=machine,
            libraries=dict(libraries),
        )

    def _network(self, recipe: Recipe, num_classes: int) -> Network:
        network = recipe.build_network(num_classes, weights=recipe.weights)
        if recipe.phase2.epochs == 0:
            key = (recipe.backbone, recipe.weights, recipe.seed, recipe.preprocessing)
            if self._frozen is None or self._frozen[0] != key:
                self._frozen = (key, RememberedFeatures(network.backbone))
            network.backbone = self._frozen[1]
        return network


@torch.no_grad()
def singular_values(
    network: Network, recipe: Recipe, data: DataSet, device: str = "cpu"
) -> list[tuple[float, float, float, float]]:
    """The first two singular values of every test image's local features `F / sqrt(N)`, before and after RUN.

    On `device`, where remembered features are.
    """
    network.to(device).eval()
    update = RankOneUpdate(network.backbone.channels, seed=recipe.seed).eval().to(device)
    found: list[tuple[float, float, float, float]] = []
    for images in batches(data.test, recipe.preprocessing, in_order(len(data.test), _BATCH_SIZE)):
        before, after = spectra(network.backbone(images.to(device)), update)
        rows = torch.cat([before[:, :2], after[:, :2]], dim=1).tolist()
        found += [(row[0], row[1], row[2], row[3]) for row in rows]
    return found


def _mean_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    ratios = [first / second for first, second in pairs if second > 0]
    return sum(ratios) / len(ratios) if ratios else float("nan")


def _merged(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **fields,
        **{
            name: _merged(fields[name], value) if name != "pooling" and isinstance(value, Mapping) else value
            for name, value in changes.items()
        },
    }
