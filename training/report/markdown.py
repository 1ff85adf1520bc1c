"""A report as Markdown (GitHub's), its pictures as files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from rankone.training.report.blocks import Block, Code, Document, Figures, Picture, Section, Table, Text
from rankone.training.report.clean import one_line

PICTURES: Final = "report"
"""Folder of the pictures, beside the file."""
_SPECIAL: Final = re.compile(r"[\\`*_\[\]<>|#~&!$]|(?<=:)(?=//)|(?<=www)(?=\.)", re.IGNORECASE)
"""Characters that mean something, and the places where a bare address would become a link."""


def markdown(document: Document) -> str:
    """The whole file."""
    lines = [f"# {escaped(document.title)}", escaped(document.subtitle)]
    for section in document.sections:
        lines += _section(section)
    return "\n\n".join(line for line in lines if line) + "\n"


def escaped(text: str) -> str:
    """Any text as one line that Markdown shows as it is: no markup, no HTML, no link, no cell of its own."""
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", one_line(text))


def _section(section: Section) -> Iterator[str]:
    yield f"## {escaped(section.title)}"
    for block in section.blocks:
        yield _block(block)


def _block(block: Block) -> str:
    match block:
        case Text(words, kind):
            return {"plain": "", "note": "> ", "warning": "> **Note well:** ", "heading": "### "}[kind] + escaped(words)
        case Picture():
            return _picture(block)
        case Table(head, align, rows):
            return _table(head, align, [tuple(_cell(cell) for cell in row) for row in rows])
        case Figures(items):
            return _table(("figure", "value", ""), "lrr", [tuple(map(escaped, item)) for item in items])
        case Code(title, text):
            return f"{escaped(title)}:\n\n" + "\n".join(f"    {line}" for line in text.splitlines())


def _cell(cell: str | Picture) -> str:
    return _picture(cell) if isinstance(cell, Picture) else escaped(cell)


def _picture(picture: Picture) -> str:
    caption = f" {escaped(picture.caption)}" if picture.caption else ""
    return f"![{escaped(picture.alt)}]({PICTURES}/{picture.name}.png){caption}"


def _table(head: tuple[str, ...], align: str, rows: list[tuple[str, ...]]) -> str:
    rule = ["---:" if side == "r" else "---" for side in align]
    return "\n".join(f"| {' | '.join(row)} |" for row in (tuple(map(escaped, head)), rule, *rows))
