"""How the figures of a bundle compare with those that it brought along from its training."""

from __future__ import annotations

from typing import Final

from model.bundle import Manifest
from training.evaluate import Report

_ROUNDING: Final = 0.005
"""Top-1 accuracies that differ by no more than this, or by one image, are the same."""


def comparison(manifest: Manifest, data_name: str, report: Report) -> tuple[str, bool]:
    """A sentence for a person, and whether it is cause for alarm: on the same images, top-1 accuracy is another."""
    record, trained = manifest.dataset, manifest.metrics
    differences = {name: abs(value - trained[name]) for name, value in report.metrics.items() if name in trained}
    if not differences:
        return "the bundle brought no figures along", False
    if record is None or (record.name, record.num_test) != (data_name, report.num_images):
        images = f"{record.num_test:,} test images of {record.name}" if record else "unknown images"
        return f"the bundle's own figures are of {images}, and not to be compared with these", False
    if report.top1 is not None and differences.get("top1", 0) > max(_ROUNDING, 1.5 / report.num_images):
        both = f"{trained['top1']:.3f} there, {report.top1:.3f} here"
        return f"TOP-1 ACCURACY DIFFERS, {both}: are these the same images, and is the bundle's engine right?", True
    largest = max(differences, key=lambda name: differences[name])
    agree = f"{len(differences)} figures agree, the largest difference is {differences[largest]:.4f}"
    return f"{agree} ({largest})" if differences[largest] else agree, False
