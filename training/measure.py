"""A bundle measured on the test images of a data set, through the engine that serves it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from rankone.model.bundle import Bundle, Manifest
from rankone.model.engine import Engine, Outputs
from rankone.model.network import open_network
from rankone.training.data import DataError, DataSet
from rankone.training.embeddings import loaded
from rankone.training.evaluate import Report
from rankone.training.processes import Resources
from rankone.training.report import Findings
from rankone.training.short import measure_outputs
from rankone.training.usable import usable

_ROUNDING: Final = 0.005
"""Figures that differ by less than this, or by what one image makes, count as the same."""


def findings_of(
    bundle: Bundle, data: DataSet, engine: Engine, *, device: str = "cpu", workers: int = 0, skip_bad: bool = False
) -> Findings:
    """What `engine` makes of the test images, and all that the bundle tells of its network.

    Every test image is decoded first; `skip_bad` leaves out those that cannot be.

    Raises:
        DataError: test images that cannot be used, all of them.
    """
    manifest = bundle.manifest
    data, skipped = usable(data, manifest.preprocessing, Resources(), skip_bad=skip_bad, splits=("test",))
    found = outputs(engine, data, bundle, workers=workers)
    short = None
    if found.short is not None:
        short = measure_outputs(found.embedding, found.short, np.array(data.test.labels))
    return Findings.of(
        open_network(bundle),
        manifest,
        data,
        (found.embedding, found.logits),
        device,
        measured_by=f"{engine.name} on {engine.provider}",
        fingerprint=bundle.fingerprint,
        short=short,
        skipped=skipped,
    )


def outputs(engine: Engine, data: DataSet, bundle: Bundle, *, workers: int = 0) -> Outputs:
    """The outputs for the test images."""
    found = loaded(data.test, bundle.manifest.preprocessing, Resources(workers=workers), "testing")
    return Outputs.joined([engine.run(images.numpy()) for images in found])


def reader_options(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """The options that the data set of the training was read with, by the name of its layout. Only benchmarks have some."""
    trained_on = manifest.dataset
    return {} if trained_on is None else {trained_on.name: manifest.recipe.get("reader", {})}


def check_classes(bundle: Bundle, data: DataSet) -> None:
    """Checks that the classes of `data` are the bundle's. A bundle without classes accepts any.

    Raises:
        DataError: they differ; the message says how.
    """
    known = bundle.manifest.classes
    if known is None or known == data.classes:
        return
    lacking, foreign = sorted(set(known) - set(data.classes)), sorted(set(data.classes) - set(known))
    if not lacking and not foreign:
        raise DataError(f"{data.name} has the classes of the bundle in another order")
    differences = [
        f"{len(names)} {words}, such as {names[0]!r}"
        for names, words in ((foreign, "that the bundle does not know"), (lacking, "of the bundle are missing"))
        if names
    ]
    raise DataError(f"the classes of {data.name} are not those of the bundle: {'; '.join(differences)}")


def compare_with_training(manifest: Manifest, data_name: str, report: Report) -> tuple[str, bool]:
    """One sentence on how the figures compare with those of the training, and whether it is a warning.

    It is a warning if the same images gave other figures.
    """
    record, trained = manifest.dataset, manifest.metrics
    differences = {name: abs(value - trained[name]) for name, value in report.metrics.items() if name in trained}
    if not differences:
        return "the bundle holds no figures of its training", False
    if record is None or (record.name, record.num_test) != (data_name, report.num_images):
        images = f"{record.num_test:,} test images of {record.name}" if record else "unknown images"
        return f"the bundle's own figures were measured on {images} and cannot be compared with these", False
    largest = max(differences, key=lambda name: differences[name])
    if apart := [name for name in differences if differences[name] > max(_ROUNDING, 1.5 / report.num_images)]:
        listed = ", ".join(f"{name} {trained[name]:.3f} there and {report.metrics[name]:.3f} here" for name in apart)
        return f"THE FIGURES DIFFER, {listed}: check that the images are the same and that the engine works", True
    return f"{len(differences)} figures agree, to {differences[largest]:.4f} ({largest})", False
