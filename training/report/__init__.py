"""The report of a network on its test images: findings -> sections of plain text and pictures -> files.

Each module imports only from those before it:

    document    text, pictures and tables; as HTML and as Markdown
    findings    what a report is written from: outputs, evidence in mistakes, singular values
    canvas      the look of every chart
    plots       the charts
    sections    figures, training, calibration, retrieval, spectrum, short embeddings
    mistakes    single classes, and confused pairs with their evidence
    card        the model card
    write       all files, into a directory
    runs        several runs on one page
"""

from __future__ import annotations

from rankone.training.report.findings import Findings
from rankone.training.report.write import write_report

__all__ = ["Findings", "write_report"]
