"""Short embeddings for a bundle that exists: learned from a data set or a folder, written as another bundle."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import torch

from rankone.model.bundle import Bundle
from rankone.model.folders import images_in
from rankone.model.network import ShortEmbedding, open_network
from rankone.training.data import DataError, DataSet, Split
from rankone.training.export import examples, write_forms
from rankone.training.processes import Processes, Resources, check_device, stop_on_signal
from rankone.training.short import ShortReport, embedded, images_of_bundle, learn, measure
from rankone.training.short.examples import ToLearnFrom, as_they_are, without_classes

_MEASURED: Final = 5
"""Of images without classes, every fifth is measured with."""


@dataclass(frozen=True)
class Reduced:
    """The new bundle, and how well its short embeddings retrieve."""

    bundle: Bundle
    report: ShortReport


def reduce_by_classes(
    bundle: Bundle, data: DataSet, out: Path, *, version: str | None = None, device: str = "cpu", workers: int = 0
) -> Reduced:
    """Learns from the training images of `data`, whatever their classes, and measures on its test images.

    Raises:
        ReductionError: nothing can be learned from these images.
        DataError: a file that cannot be read as an image.
        ExportError: an exported form does not agree with the network.
        BundleError: `out` exists, or the bundle has no weights.
    """
    chosen = images_of_bundle(data, bundle.manifest)
    return _reduced(bundle, chosen, ToLearnFrom(data.test, as_they_are, ""), data.test, out, version, device, workers)


def reduce_without_classes(
    bundle: Bundle, folder: Path, out: Path, *, version: str | None = None, device: str = "cpu", workers: int = 0
) -> Reduced:
    """Learns from all images under `folder`, and measures whether other views of every fifth of them are found.

    Raises:
        DataError: there are fewer than 20 images; for the others see `reduce_by_classes`.
    """
    paths = images_in(folder) if folder.is_dir() else []
    if len(paths) < 4 * _MEASURED:
        raise DataError(
            f"{folder} holds {len(paths)} images; short embeddings are learned from at least {4 * _MEASURED}"
        )
    images = Split(tuple(paths), tuple(range(len(paths))))
    measured = range(0, len(paths), _MEASURED)
    learned_from = without_classes(images.at(sorted({*range(len(paths))} - {*measured})))
    return _reduced(bundle, learned_from, without_classes(images.at(measured)), images, out, version, device, workers)


def _reduced(
    bundle: Bundle,
    chosen: ToLearnFrom,
    measured: ToLearnFrom,
    checked: Split,
    out: Path,
    version: str | None,
    device: str,
    workers: int,
) -> Reduced:
    """Learns from `chosen`, measures on `measured`, and checks the exported forms on images of `checked`."""
    check_device(device)
    network, manifest = open_network(bundle), bundle.manifest
    network.short = None
    with stop_on_signal() as stop:
        resources = Resources(workers=workers, stop=stop, processes=Processes(torch.device(device)))
        learned = learn(embedded(network, chosen, manifest.preprocessing, resources))
        test = embedded(network, measured, manifest.preprocessing, resources, "testing")
    report = measure(test.embeddings, test.groups, learned)
    network.short = ShortEmbedding.of(learned.reduction)
    changes = {
        "version": version or f"{manifest.version}-short",
        "created": datetime.now(UTC),
        "reduction": learned.record(report.recommended),
        "int8": None,
        "parity": {},
        "files": {},
    }
    images = examples(checked, manifest.preprocessing)
    return Reduced(write_forms(network, manifest.model_copy(update=changes), images, out), report)
