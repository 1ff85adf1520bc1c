"""How the figures of a bundle compare with those that it brought along from its training."""

from __future__ import annotations

from typing import Final

from rankone.model.bundle import Manifest
from rankone.training.evaluate import Report

_ROUNDING: Final = 0.005
"""Figures that differ by no more than this, or by what one image makes, are the same."""


def comparison(manifest: Manifest, data_name: str, report: Report) -> tuple[str, bool]:
    """A sentence for a person, and whether it is cause for alarm: on the same images, a figure is another."""
    record, trained = manifest.dataset, manifest.metrics
    differences = {name: abs(value - trained[name]) for name, value in report.metrics.items() if name in trained}
    if not differences:
        return "the bundle brought no figures along", False
    if record is None or (record.name, record.num_test) != (data_name, report.num_images):
        images = f"{record.num_test:,} test images of {record.name}" if record else "unknown images"
        return f"the bundle's own figures are of {images}, and not to be compared with these", False
    largest = max(differences, key=lambda name: differences[name])
    if apart := [name for name in differences if differences[name] > max(_ROUNDING, 1.5 / report.num_images)]:
        listed = ", ".join(f"{name} {trained[name]:.3f} there and {report.metrics[name]:.3f} here" for name in apart)
        return f"THE FIGURES DIFFER, {listed}: are these the same images, and is the engine right?", True
    return f"{len(differences)} figures agree, to {differences[largest]:.4f} ({largest})", False
