"""The report in its files: report.html, report.md with report/*.png, report.json and model-card.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rankone.training.evaluate import REPORT, Report, compute_report
from rankone.training.report import mistakes, sections
from rankone.training.report.card import card
from rankone.training.report.document import Document, Picture, Section, Table
from rankone.training.report.findings import Findings
from rankone.training.report.markup import PICTURES, html, markdown

HTML: Final = "report.html"
MARKDOWN: Final = "report.md"
CARD: Final = "model-card.md"


def write_report(findings: Findings, out: Path) -> Report:
    """Computes every figure and writes the report into the directory `out`, over one that is there.

    Every file is replaced whole or not at all, report.json last.

    Raises:
        DataError: a test image that is to be shown cannot be read any more.
    """
    report = compute_report(findings.embeddings, findings.logits, findings.labels, findings.data.classes)
    report.phase1 = None if findings.phase1 is None else dict(findings.phase1)
    document = document_of(findings, report)
    folder = out / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {f"{picture.name}.png": picture.light for picture in _pictures(document)}
    for name, png in drawn.items():
        _replace(folder / name, png)
    for stale in set(folder.glob("confused-*.png")) - {folder / name for name in drawn}:
        stale.unlink()
    _replace(out / HTML, html(document).encode())
    _replace(out / MARKDOWN, markdown(document).encode())
    alone = Document(document.title, document.subtitle, document.sections[-1:])
    _replace(out / CARD, markdown(alone).encode())
    _replace(out / REPORT, f"{report.model_dump_json()}\n".encode())
    return report


def document_of(findings: Findings, report: Report) -> Document:
    """The report, whatever it is written as: those sections of which there is something to say."""
    parts: list[Section] = [sections.summary(findings, report), sections.training(findings)]
    if report.confusion is not None:
        parts += [
            mistakes.classes(findings, report),
            mistakes.confusions(findings, report),
            sections.calibration(report),
        ]
    parts.append(sections.retrieval(report))
    if findings.spectrum is not None:
        parts.append(sections.spectrum(findings))
    facts = findings.facts
    subtitle = (
        f"{facts.backbone} + {facts.pooling} on {findings.data.name}, {facts.measured:%Y-%m-%d}, {facts.measured_by}"
    )
    return Document(facts.name, subtitle, [*parts, card(findings, report)])


def _pictures(document: Document) -> Iterator[Picture]:
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Picture):
                yield block
            elif isinstance(block, Table):
                yield from (cell for row in block.rows for cell in row if isinstance(cell, Picture))


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)
