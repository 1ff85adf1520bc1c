"""The report of a network on its test images, for people: findings -> sections of plain text and pictures -> files.

findings.py    what goes in
sections.py    what is said of it, mistakes.py of single classes, card.py of the network, protocol.py of what steered
pictures/      draws
html.py        one file that needs nothing else; markdown.py the same beside its pictures
write.py       all files into a directory
"""

from __future__ import annotations

from rankone.training.report.findings import Facts, Findings
from rankone.training.report.write import CARD, HTML, JSON, MARKDOWN, write_report

__all__ = ["CARD", "HTML", "JSON", "MARKDOWN", "Facts", "Findings", "write_report"]
