"""One network trained and measured, written as JSON when it is done."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from benchmarks.paper.plan import Setting, TableError
from benchmarks.timing import machine
from rankone.model.backbone import Backbone
from rankone.model.network import Network
from rankone.model.normalization import RankOneUpdate
from rankone.model.training_record import EpochRecord
from rankone.training import pipeline
from rankone.training.checkpoint import training_libraries
from rankone.training.data import DataSet
from rankone.training.data.batches import batches, in_order
from rankone.training.fit import fit
from rankone.training.processes import Processes, Resources, StopRequest
from rankone.training.recipe import Recipe
from rankone.training.report.findings import singular_values as spectra
from rankone.training.run import DataRecord, Run, replace_file

_BATCH_SIZE = 8
Kept = TypeVar("Kept", bound=BaseModel)


class Measured(BaseModel):
    """A trained network: how it was trained, and its figures on the test images."""

    pooling: str
    seed: int
    recipe: dict[str, Any]
    data: DataRecord
    metrics: dict[str, float]
    phase1: dict[str, float] | None = None
    """The same figures after phase 1; None for a recipe without phase 2, and in older files."""
    history: list[EpochRecord]
    singular_values: list[tuple[float, float, float, float]] | None
    """For every test image: the first two singular values of its local features, before and after RUN with its defaults."""
    seconds: float
    machine: str
    libraries: dict[str, str]

    @property
    def mean_ratio(self) -> float:
        """The mean of the first singular value over the second; images whose second one is 0 are left out."""
        return _mean_ratio([(first, second) for first, second, *_ in self.singular_values or ()])

    @property
    def mean_ratio_after(self) -> float:
        """The same after RUN."""
        return _mean_ratio([(first, second) for *_, first, second in self.singular_values or ()])


class CachedFeatures(Backbone):
    """A frozen backbone that caches the local features of every image it has seen, up to `max_bytes`."""

    def __init__(self, backbone: Backbone, max_bytes: int = 2 << 30) -> None:
        super().__init__(backbone.convolutions, backbone.channels, backbone.stride)
        self._left = max_bytes
        self._kept: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        keys = [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images.cpu()]
        unknown = [number for number, key in enumerate(keys) if key not in self._kept]
        computed = dict(zip(unknown, super().forward(images[unknown]), strict=True)) if unknown else {}
        for number, features_ND in computed.items():
            if features_ND.nbytes <= self._left:
                self._left -= features_ND.nbytes
                self._kept[keys[number]] = features_ND.clone()
        return torch.stack([computed[i] if i in computed else self._kept[key] for i, key in enumerate(keys)])


class Workshop:
    """Trains and measures one network after the other; a frozen backbone runs once for every image."""

    def __init__(self, path: Path, stop: StopRequest, *, device: str = "cpu", workers: int = 0) -> None:
        self._path, self._stop, self._device, self._workers = path, stop, device, workers
        self._frozen: tuple[tuple[object, ...], Backbone] | None = None

    def measured(self, setting: Setting, path: Path) -> Measured:
        """See `kept`; raises Interrupted when the checkpoint is saved, and the same call resumes."""
        return kept(path, Measured, lambda: self.measure(setting))

    def measure(self, setting: Setting) -> Measured:
        """Trains and measures, or resumes from the checkpoint.

        Raises:
            Interrupted: the checkpoint is saved.
        """
        started = time.perf_counter()
        recipe, data, path = setting.recipe, setting.data, self._path / setting.key
        network = self._network(recipe, len(data.classes))
        resources = Resources(workers=self._workers, stop=self._stop, processes=Processes(torch.device(self._device)))
        state = fit(network, data, Run.start(path, recipe, data), resources, report_line=lambda _: None)
        after_phase1 = self._network(recipe, len(data.classes))
        has_phase1 = Run.open(path).load_phase1(after_phase1)
        result = Measured(
            pooling=recipe.pooling.name,
            seed=recipe.seed,
            recipe=recipe.model_dump(mode="json"),
            data=DataRecord.of(data),
            metrics=self._metrics(network, setting),
            phase1=self._metrics(after_phase1, setting) if has_phase1 else None,
            history=state.history,
            singular_values=singular_values(network, recipe, data, self._device) if setting.singular_values else None,
            seconds=time.perf_counter() - started,
            machine=machine(),
            libraries=training_libraries(),
        )
        shutil.rmtree(path)
        return result

    def _metrics(self, network: Network, setting: Setting) -> dict[str, float]:
        report = pipeline.measure(network, setting.recipe, setting.data, device=self._device, workers=self._workers)
        return report.metrics

    def _network(self, recipe: Recipe, num_classes: int) -> Network:
        network = recipe.build_network(num_classes, weights=recipe.weights)
        if recipe.phase2.epochs == 0:
            key = (recipe.backbone, recipe.weights, recipe.seed, recipe.preprocessing)
            if self._frozen is None or self._frozen[0] != key:
                self._frozen = (key, CachedFeatures(network.backbone))
            network.backbone = self._frozen[1]
        return network


def kept(path: Path, kind: type[Kept], measure: Callable[[], Kept]) -> Kept:
    """The measurement in `path`, made and written there if it is missing.

    Raises:
        TableError: the file cannot be read.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, measure().model_dump_json(indent=2).encode())
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise TableError(f"{path} cannot be read; remove it and run again: {error}") from error


@torch.no_grad()
def singular_values(
    network: Network, recipe: Recipe, data: DataSet, device: str = "cpu"
) -> list[tuple[float, float, float, float]]:
    """The first two singular values of every test image's local features `F / sqrt(N)`, before and after RUN."""
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
