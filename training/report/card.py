"""The model card: what the network is, what it is for, and what it cannot do.

Source: Mitchell et al., Model Cards for Model Reporting, 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from rankone.training.evaluate import FIGURES, Report
from rankone.training.report.document import Code, Section, Table, Text, percent
from rankone.training.report.findings import Findings
from rankone.training.report.sections import selection_note


def card(findings: Findings, report: Report) -> Section:
    """The whole card."""
    figures = [(FIGURES[name], percent(value)) for name, value in report.metrics.items()]
    return Section(
        "Model card",
        [
            Text("The network", "heading"),
            Table(("what", "value"), "ll", _network(findings)),
            Text("What it is for", "heading"),
            Text(_use(findings)),
            Text("How good it is", "heading"),
            Table(("figure", "on the test images"), "lr", figures),
            selection_note(findings),
            Text("What to know", "heading"),
            *map(Text, _limits(findings, report)),
            Text("How it was made", "heading"),
            Code("recipe", yaml.safe_dump(findings.manifest.recipe, sort_keys=False)),
            Code("versions", "".join(f"{name} {version}\n" for name, version in findings.manifest.libraries.items())),
        ],
    )


def _network(findings: Findings) -> list[tuple[str, str]]:
    manifest, spec, data = findings.manifest, findings.manifest.preprocessing, findings.manifest.dataset
    short_side = f"short side to {spec.short_side}, then " if spec.short_side else ""
    large = ", large JPEGs decoded at reduced scale" if spec.jpeg == "reduced" else ""
    rows = {
        "name": findings.title,
        "fingerprint": findings.fingerprint or "none: not exported yet",
        "backbone": f"{manifest.backbone.name}, from {manifest.backbone.weights} weights",
        "pooling": f"{manifest.pooling.system}: {_parts(manifest.pooling.parts)}",
        "input": f"{short_side}centre {spec.size} x {spec.size} pixels, RGB (preprocessing version {spec.version}{large})",
        "embedding": f"{manifest.dim:,} numbers, of length 1",
        "parameters": f"{findings.num_parameters:,}",
        "classes": "none: it only embeds" if findings.logits is None else f"{len(findings.data.classes):,}",
        "trained on": f"{data.name}, {data.num_train:,} images ({data.split})" if data else "not recorded",
        "measured": f"{findings.measured:%Y-%m-%d}, {findings.measured_by}",
    }
    return list(rows.items())


def _use(findings: Findings) -> str:
    retrieval = "Its embeddings are compared by cosine, to find similar images."
    if findings.logits is None:
        return retrieval
    return (
        f"It distinguishes {len(findings.data.classes):,} classes in images like its training images. {retrieval} It assigns "
        "every image to one of its classes, also an image of something else, and the probability can be high."
    )


def _limits(findings: Findings, report: Report) -> list[str]:
    spec = findings.manifest.preprocessing
    crop = "" if spec.short_side else "the largest centred square of "
    points = [
        f"It sees {crop}an image at {spec.size} x {spec.size} pixels; details too small to be seen at that size are lost.",
        f"The figures were measured on {report.num_images:,} images, and hold for images that are taken alike.",
    ]
    smallest = min((sum(row) for row in report.confusion or () if sum(row)), default=0)
    if 0 < smallest < 30:
        points.append(f"A class has as few as {smallest} test images: its own accuracy is a rough figure.")
    return points


def _parts(parts: Mapping[str, Any]) -> str:
    named = [_part(parts[kind]) for kind in ("statistic", "normalization", "projection") if kind in parts]
    return ", ".join([*named, "ssqrt, l2"] if parts.get("elementwise") else named)


def _part(part: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name} {str(value).lower()}" for name, value in part.items() if name != "name")
    return f"{part['name']} ({options})" if options else str(part["name"])
