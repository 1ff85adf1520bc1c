"""From a trained network to a bundle: its weights and every exported form, each checked on real images."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress
from safetensors.torch import save_file

from rankone.model.bundle import WEIGHTS, BackboneRecord, Bundle, DatasetRecord, Manifest, PoolingRecord, seal, staged
from rankone.model.engine.base import Outputs
from rankone.model.errors import RankoneError
from rankone.model.evidence import FEATURES, EvidenceRecord, why_not
from rankone.model.folders import name_of
from rankone.model.network import Network
from rankone.model.preprocessing import Preprocessing
from rankone.model.reduction import ReductionRecord
from rankone.model.training_record import TrainingRecord
from rankone.training.checkpoint import training_libraries
from rankone.training.data import Split
from rankone.training.data.batches import batches, in_order
from rankone.training.forms import FORMS, MIN_IMAGES, Captured, Exported, ExportError, check_parity, reference_of
from rankone.training.recipe import PoolingRecipe, Recipe

__all__ = ["MIN_IMAGES", "Description", "ExportError", "check_exportable", "manifest_of", "write_bundle", "write_forms"]

_FULL: Final = re.compile(r"No space left|File too large|Disk quota exceeded|os error (27|28|122)\b")
_NO_ROOM: Final = 1 << 20
"""Bytes; a disk with less of them is full."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the manifest says beside what can be read off the network and its recipe."""

    name: str
    version: str
    classes: tuple[str, ...] | None
    metrics: Mapping[str, float]
    dataset: DatasetRecord | None
    training: TrainingRecord | None = None
    reduction: ReductionRecord | None = None


def write_bundle(
    network: Network, recipe: Recipe, images: npt.NDArray[np.float32], path: Path, description: Description
) -> Bundle:
    """Writes the bundle `path`, or nothing; see `write_forms`.

    Raises:
        ExportError: no graph can hold the pooling, too.
    """
    check_exportable(recipe.pooling)
    return write_forms(network, manifest_of(network, recipe, description), images, path)


def write_forms(network: Network, manifest: Manifest, images: npt.NDArray[np.float32], path: Path) -> Bundle:
    """Writes every form of the network and the manifest, to which it adds parity and files, as the bundle `path`.

    `images` are at least 7 real images, preprocessed, (n, 3, size, size), on which every exported form must agree.

    Raises:
        ExportError: an exported form does not agree with the network in float64, its graph holds what it must not, or the
            disk is full.
        BundleError: `path` exists.
    """
    if len(images) < MIN_IMAGES:
        raise ExportError(f"an export is checked on at least {MIN_IMAGES} images, got {len(images)}")
    network = network.cpu().float().eval().to(memory_format=torch.contiguous_format)  # an encoder may have changed it
    has_evidence = why_not(manifest.pooling.parts) is None
    names = (*manifest.outputs, *((FEATURES,) if has_evidence else ()))
    captured = Captured(Exported(network, features=has_evidence).eval(), torch.from_numpy(images[:2]), names)
    with staged(path) as stage, _full_disk_named(stage), Progress() as bar:
        task = bar.add_task("exporting and checking", total=1 + 2 * len(FORMS))
        save_file(network.state_dict(), stage / WEIGHTS)
        reference = reference_of(network, images, features=has_evidence)
        manifest = manifest.model_copy(update={"evidence": _record_of(reference)})
        bar.advance(task)
        parity = {}
        for name, form in FORMS.items():
            form.write(captured, stage / name)
            bar.advance(task)
            parity[name] = check_parity(form.load(stage / name, manifest), reference, images)
            bar.advance(task)
        return seal(stage, manifest.model_copy(update={"parity": parity}), path)


def _record_of(reference: Outputs) -> EvidenceRecord | None:
    """The shape of the map; None without features."""
    return None if reference.features is None else EvidenceRecord.of(reference.features[0])


@contextmanager
def _full_disk_named(stage: Path) -> Iterator[None]:
    """Raises one error for a full disk, for which safetensors, torch and onnx each have their own."""
    try:
        yield
    except RankoneError:
        raise
    except Exception as error:
        if not _FULL.search(f"{error!r}") and shutil.disk_usage(stage).free > _NO_ROOM:
            raise
        raise ExportError(
            f"the bundle could not be written to {name_of(stage.parent)}: the disk is full. Nothing is left of it; make "
            f"room, then repeat the command"
        ) from error


def check_exportable(pooling: PoolingRecipe) -> None:
    """Raises ExportError where no graph can hold the pooling, naming what to train instead."""
    parts = pooling.composition
    if not parts.needs_eigendecomposition:
        return
    named = f"{pooling.sibling}, or " if pooling.sibling else ""
    raise ExportError(
        f"{pooling.name} needs an eigendecomposition, which no exported graph can hold; train {named}"
        f"the same parts with normalization newton-schulz in place of {parts.normalization.name}, and export that"
    )


def manifest_of(network: Network, recipe: Recipe, description: Description) -> Manifest:
    """The manifest of a network that is not exported yet: without parity and files."""
    parts = recipe.pooling.composition
    return Manifest(
        name=description.name,
        version=description.version,
        created=datetime.now(UTC),
        classes=description.classes,
        dim=network.pooling.out_dim,
        pooling=PoolingRecord(system=recipe.pooling.name, options=parts.options, parts=parts.describe()),
        backbone=BackboneRecord(name=recipe.backbone, weights=recipe.weights),
        preprocessing=recipe.preprocessing,
        metrics=dict(description.metrics),
        recipe=recipe.model_dump(mode="json"),
        dataset=description.dataset,
        training=description.training,
        reduction=description.reduction,
        libraries=training_libraries(),
        parity={},
    )


def examples(split: Split, spec: Preprocessing) -> npt.NDArray[np.float32]:
    """Images from all over the split, preprocessed: the exported forms are checked on them."""
    chosen = split.spaced(MIN_IMAGES * 2)
    images: npt.NDArray[np.float32] = next(batches(chosen, spec, in_order(len(chosen), len(chosen)))).numpy()
    return images
