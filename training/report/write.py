"""The report in its files: report.html, report.md with report/*.png, report.json and model-card.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rankone.model.bundle import Manifest
from rankone.training.evaluate import REPORT, Report, compute_report
from rankone.training.report import mistakes, sections
from rankone.training.report.card import card
from rankone.training.report.document import PICTURES, Document, markdown, write_document
from rankone.training.report.findings import Findings
from rankone.training.run import replace_file
from rankone.training.short import ShortReport

_CARD: Final = "model-card.md"
_SHORT: Final = "short"


def write_report(findings: Findings, out: Path) -> Report:
    """Computes every figure and writes the report into the directory `out`, over an earlier one.

    Every file is replaced whole or not at all, report.json last.

    Raises:
        DataError: a test image that is to be shown cannot be read any more.
    """
    report = compute_report(findings.embeddings, findings.logits, findings.labels, findings.data.classes)
    report.short = findings.short
    report.phase1 = None if findings.phase1 is None else dict(findings.phase1)
    document = document_of(findings, report)
    write_document(document, out, REPORT.removesuffix(".json"))
    drawn = {f"{picture.name}.png" for picture in document.pictures}
    for path in (out / PICTURES).glob("confused-*.png"):
        if path.name not in drawn:
            path.unlink()
    replace_file(out / _CARD, markdown(Document(document.title, document.subtitle, document.sections[-1:])).encode())
    replace_file(out / REPORT, f"{report.model_dump_json()}\n".encode())
    return report


def write_short(report: ShortReport, manifest: Manifest, out: Path) -> None:
    """Writes the section on short embeddings as a report of its own: short.html, short.md and short.json in `out`."""
    section = sections.short(report, manifest.reduction)
    document = Document(f"{manifest.name} {manifest.version}", "short embeddings", [section])
    write_document(document, out, _SHORT)
    replace_file(out / f"{_SHORT}.json", f"{report.model_dump_json()}\n".encode())


def document_of(findings: Findings, report: Report) -> Document:
    """The report, independent of its format: the sections that have something to say."""
    parts = [sections.summary(findings, report), sections.training(findings)]
    if report.confusion is not None:
        parts += [
            mistakes.classes(findings, report),
            mistakes.confusions(findings, report),
            sections.calibration(report),
        ]
    parts.append(sections.retrieval(report))
    if report.short is not None:
        parts.append(sections.short(report.short, findings.manifest.reduction))
    if findings.spectrum is not None:
        parts.append(sections.spectrum(findings.spectrum))
    if findings.skipped:
        parts.append(sections.skipped(findings))
    manifest, when = findings.manifest, f"{findings.measured:%Y-%m-%d}, {findings.measured_by}"
    subtitle = f"{manifest.backbone.name} + {manifest.pooling.system} on {findings.data.name}, {when}"
    return Document(findings.title, subtitle, [*parts, card(findings, report)])
