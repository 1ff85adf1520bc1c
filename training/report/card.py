"""The model card: what the network is, what it is for, and what it cannot do.

Source: Mitchell et al., Model Cards for Model Reporting, 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from rankone.training.evaluate import Report
from rankone.training.report.document import Block, Code, Section, Table, Text
from rankone.training.report.findings import NAMES, Facts, Findings, percent
from rankone.training.report.sections import steering


def card(findings: Findings, report: Report) -> Section:
    """The whole card."""
    figures = [(NAMES[name], percent(value)) for name, value in report.metrics.items()]
    return Section(
        "Model card",
        [
            Text("The network", "heading"),
            Table(("what", "value"), "ll", _network(findings)),
            Text("What it is for", "heading"),
            Text(_use(findings)),
            Text("How good it is", "heading"),
            Table(("figure", "on the test images"), "lr", figures),
            steering(findings),
            Text("What to know", "heading"),
            *_limits(findings, report),
            Text("How it was made", "heading"),
            Code("recipe", yaml.safe_dump(dict(findings.facts.recipe), sort_keys=False)),
            Code("versions", "".join(f"{name} {version}\n" for name, version in findings.facts.libraries.items())),
        ],
    )


def _network(findings: Findings) -> list[tuple[str, str]]:
    facts = findings.facts
    rows = {
        "name": facts.name,
        "fingerprint": facts.fingerprint or "none: not exported yet",
        "backbone": f"{facts.backbone}, from {facts.weights} weights",
        "pooling": f"{facts.pooling}: {_parts(facts.parts)}",
        "input": _input(facts),
        "embedding": f"{facts.dim:,} numbers, of length 1",
        "parameters": f"{facts.num_parameters:,}",
        "classes": "none: it only embeds" if findings.logits is None else f"{len(findings.data.classes):,}",
        "trained on": _trained_on(facts),
        "measured": f"{facts.measured:%Y-%m-%d}, {facts.measured_by}",
    }
    return list(rows.items())


def _use(findings: Findings) -> str:
    embeds = "Embeddings are compared by cosine, to find images that are alike."
    if findings.logits is None:
        return embeds
    return (
        f"To tell {len(findings.data.classes):,} classes apart in images like those it was trained on. {embeds} It names "
        "one of its classes for every image: of something else it names one too, and the probability can be high."
    )


def _limits(findings: Findings, report: Report) -> list[Block]:
    size = findings.facts.preprocessing.size
    seen = "" if findings.facts.preprocessing.short_side else "the largest centred square of "
    points = [
        f"It sees {seen}an image at {size} x {size} pixels; details too small to be seen at that size are lost to it.",
        f"The figures are of {report.num_images:,} images. They hold for images that are taken alike, and for no others.",
    ]
    smallest = min((sum(row) for row in report.confusion or () if sum(row)), default=0)
    if 0 < smallest < 30:
        points.append(f"A class has as few as {smallest} test images: its own accuracy is a rough figure.")
    return [Text(point) for point in points]


def _parts(parts: Mapping[str, Any]) -> str:
    kinds = ("statistic", "normalization", "projection")
    named = [_part(parts[kind]) for kind in kinds if kind in parts]
    return ", ".join([*named, "ssqrt, l2"] if parts.get("elementwise") else named)


def _part(part: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name} {str(value).lower()}" for name, value in part.items() if name != "name")
    return f"{part['name']} ({options})" if options else str(part["name"])


def _input(facts: Facts) -> str:
    spec = facts.preprocessing
    side = f"short side to {spec.short_side}, then " if spec.short_side else ""
    return f"{side}centre {spec.size} x {spec.size} pixels, RGB (preprocessing version {spec.version})"


def _trained_on(facts: Facts) -> str:
    if facts.trained_on is None:
        return "not recorded"
    data = facts.trained_on
    return f"{data.name}, {data.num_train:,} images ({data.split})"
