"""A document as one self-contained HTML file (no script, nothing fetched), and as GitHub's Markdown with pictures beside it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from html import escape
from importlib import resources
from typing import Final

from rankone.training.report.document import Block, Code, Document, Figures, Picture, Section, Table, Text, one_line

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Asked of the browser: were something let through that should have been escaped, it could load and run nothing."""


def html(document: Document) -> str:
    """The whole file."""
    style = resources.files("rankone.training.report").joinpath("report.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{place}">{_html_text(s.title)}</a>' for place, s in enumerate(document.sections, 1))
    body = "".join(_html_section(place, section) for place, section in enumerate(document.sections, 1))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_html_text(document.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header><h1>{_html_text(document.title)}</h1><p>{_html_text(document.subtitle)}</p><nav>{links}</nav></header>\n"
        f"<main>{body}</main>\n</body>\n</html>\n"
    )


def _html_text(text: str) -> str:
    return escape(one_line(text))


def _html_section(place: int, section: Section) -> str:
    return f'\n<section id="{place}"><h2>{_html_text(section.title)}</h2>\n{"".join(_blocks(section))}</section>\n'


def _blocks(section: Section) -> Iterator[str]:
    for block in section.blocks:
        yield _html_block(block) + "\n"


def _html_block(block: Block) -> str:
    match block:
        case Text(words, "heading"):
            return f"<h3>{_html_text(words)}</h3>"
        case Text(words, kind):
            return f'<p class="{kind}">{_html_text(words)}</p>'
        case Picture():
            return f"<figure>{_html_picture(block)}</figure>"
        case Table():
            return _html_table(block)
        case Figures(items):
            return f'<dl class="figures">{"".join(_figure(*item) for item in items)}</dl>'
        case Code(title, text):
            return f"<details><summary>{_html_text(title)}</summary><pre>{escape(text)}</pre></details>"


def _figure(name: str, value: str, beside: str) -> str:
    return f"<div><dt>{_html_text(name)}</dt><dd>{_html_text(value)}<small>{_html_text(beside)}</small></dd></div>"


def _html_table(table: Table) -> str:
    sides = ["number" if side == "r" else "words" for side in table.align]
    head = "".join(f'<th class="{side}">{_html_text(name)}</th>' for name, side in zip(table.head, sides, strict=True))
    rows = "".join(
        "<tr>"
        + "".join(f'<td class="{side}">{_html_cell(cell)}</td>' for cell, side in zip(row, sides, strict=True))
        + "</tr>"
        for row in table.rows
    )
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _html_cell(cell: str | Picture) -> str:
    return _html_picture(cell) if isinstance(cell, Picture) else _html_text(cell)


def _html_picture(picture: Picture) -> str:
    width = round(int.from_bytes(picture.light[16:20]) / picture.scale)  # of the PNG's header
    image = f'<img src="{_data(picture.light)}" width="{width}" alt="{_html_text(picture.alt)}">'
    if picture.dark is not None:
        dark = f'<source media="(prefers-color-scheme: dark)" srcset="{_data(picture.dark)}">'
        image = f"<picture>{dark}{image}</picture>"
    return image + (f"<small>{_html_text(picture.caption)}</small>" if picture.caption else "")


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


PICTURES: Final = "report"
"""Folder of the pictures, beside the file."""
_SPECIAL: Final = re.compile(r"[\\`*_\[\]<>|#~&!$]|(?<=:)(?=//)|(?<=www)(?=\.)", re.IGNORECASE)
"""Characters that mean something, and the places where a bare address would become a link."""


def markdown(document: Document) -> str:
    """The whole file."""
    lines = [f"# {escaped(document.title)}", escaped(document.subtitle)]
    for section in document.sections:
        lines += _markdown_section(section)
    return "\n\n".join(line for line in lines if line) + "\n"


def escaped(text: str) -> str:
    """Any text as one line that Markdown shows as it is: no markup, no HTML, no link, no cell of its own."""
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", one_line(text))


def _markdown_section(section: Section) -> Iterator[str]:
    yield f"## {escaped(section.title)}"
    for block in section.blocks:
        yield _markdown_block(block)


def _markdown_block(block: Block) -> str:
    match block:
        case Text(words, kind):
            return {"plain": "", "note": "> ", "warning": "> **Note well:** ", "heading": "### "}[kind] + escaped(words)
        case Picture():
            return _markdown_picture(block)
        case Table(head, align, rows):
            return _markdown_table(head, align, [tuple(_markdown_cell(cell) for cell in row) for row in rows])
        case Figures(items):
            return _markdown_table(("figure", "value", ""), "lrr", [tuple(map(escaped, item)) for item in items])
        case Code(title, text):
            return f"{escaped(title)}:\n\n" + "\n".join(f"    {line}" for line in text.splitlines())


def _markdown_cell(cell: str | Picture) -> str:
    return _markdown_picture(cell) if isinstance(cell, Picture) else escaped(cell)


def _markdown_picture(picture: Picture) -> str:
    caption = f" {escaped(picture.caption)}" if picture.caption else ""
    return f"![{escaped(picture.alt)}]({PICTURES}/{picture.name}.png){caption}"


def _markdown_table(head: tuple[str, ...], align: str, rows: list[tuple[str, ...]]) -> str:
    rule = ["---:" if side == "r" else "---" for side in align]
    return "\n".join(f"| {' | '.join(row)} |" for row in (tuple(map(escaped, head)), rule, *rows))
