"""The report of a network on its test images: findings -> sections of plain text and pictures -> files.

Each module imports only from those before it:

    document    text, pictures and tables, independent of the format
    markup      a document as HTML and as Markdown
    spectrum    singular values of local features before and after RUN
    confused    the most confused pairs, and the evidence in their images
    findings    what a report is written from
    canvas      the look of every chart
    plots       the charts
    short       short embeddings by length
    sections    figures, training, calibration, retrieval, spectrum
    mistakes    single classes, and confused pairs with their evidence
    card        the model card
    write       all files, into a directory
    tables      the tables of a comparison of runs
    runs        several runs on one page
"""

from __future__ import annotations

from rankone.training.report.findings import Findings
from rankone.training.report.write import CARD, HTML, MARKDOWN, write_report

__all__ = ["CARD", "HTML", "MARKDOWN", "Findings", "write_report"]
