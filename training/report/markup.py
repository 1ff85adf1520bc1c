"""A document as one self-contained HTML file (no script, nothing fetched), and as GitHub's Markdown with pictures beside it."""

from __future__ import annotations

import base64
import re
from html import escape
from importlib import resources
from typing import Final

from rankone.training.report.document import Block, Code, Document, Figures, Picture, Table, Text, one_line

PICTURES: Final = "report"
"""Folder of the pictures, beside the Markdown file."""
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""A second line of defence: even text that was not escaped could load and run nothing."""
_SPECIAL: Final = re.compile(r"[\\`*_\[\]<>|#~&!$]|(?<=:)(?=//)|(?<=www)(?=\.)", re.IGNORECASE)
"""Characters with a meaning in Markdown, and the places where a bare address would become a link."""


def html(document: Document) -> str:
    """The whole file."""
    style = resources.files("rankone.training.report").joinpath("report.css").read_text(encoding="utf-8")
    title, links, body = _html(document.title), "", ""
    for place, section in enumerate(document.sections, 1):
        links += f'<a href="#{place}">{_html(section.title)}</a>'
        blocks = "".join(f"{_html_block(block)}\n" for block in section.blocks)
        body += f'\n<section id="{place}"><h2>{_html(section.title)}</h2>\n{blocks}</section>\n'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header><h1>{title}</h1><p>{_html(document.subtitle)}</p><nav>{links}</nav></header>\n"
        f"<main>{body}</main>\n</body>\n</html>\n"
    )


def markdown(document: Document) -> str:
    """The whole file."""
    parts = [f"# {escaped(document.title)}", escaped(document.subtitle)]
    for section in document.sections:
        parts += [f"## {escaped(section.title)}", *map(_markdown_block, section.blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """Any text as one line that Markdown shows unchanged: no markup, no HTML, no link, no table cell."""
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", one_line(text))


def _html(text: str) -> str:
    return escape(one_line(text))


def _html_block(block: Block) -> str:
    match block:
        case Text(words, "heading"):
            return f"<h3>{_html(words)}</h3>"
        case Text(words, kind):
            return f'<p class="{kind}">{_html(words)}</p>'
        case Picture():
            return f"<figure>{_html_picture(block)}</figure>"
        case Table():
            return _html_table(block)
        case Figures(items):
            cells = (tuple(map(_html, item)) for item in items)
            rows = (
                f"<div><dt>{name}</dt><dd>{value}<small>{beside}</small></dd></div>" for name, value, beside in cells
            )
            return f'<dl class="figures">{"".join(rows)}</dl>'
        case Code(title, text):
            return f"<details><summary>{_html(title)}</summary><pre>{escape(text)}</pre></details>"


def _html_table(table: Table) -> str:
    def row(cells: tuple[str | Picture, ...], tag: str) -> str:
        found = [_html_picture(cell) if isinstance(cell, Picture) else _html(cell) for cell in cells]
        pairs = zip(("number" if side == "r" else "words" for side in table.align), found, strict=True)
        return "<tr>" + "".join(f'<{tag} class="{side}">{cell}</{tag}>' for side, cell in pairs) + "</tr>"

    body = "".join(row(cells, "td") for cells in table.rows)
    return f'<div class="table"><table><thead>{row(table.head, "th")}</thead><tbody>{body}</tbody></table></div>'


def _html_picture(picture: Picture) -> str:
    light, dark = (base64.b64encode(png or b"").decode() for png in (picture.light, picture.dark))
    width = round(int.from_bytes(picture.light[16:20]) / picture.scale)  # of the PNG's header
    image = f'<img src="data:image/png;base64,{light}" width="{width}" alt="{_html(picture.alt)}">'
    if dark:
        source = f'<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">'
        image = f"<picture>{source}{image}</picture>"
    return image + (f"<small>{_html(picture.caption)}</small>" if picture.caption else "")


def _markdown_block(block: Block) -> str:
    match block:
        case Text(words, kind):
            return {"plain": "", "note": "> ", "warning": "> **Note well:** ", "heading": "### "}[kind] + escaped(words)
        case Picture():
            return _markdown_cell(block)
        case Table():
            return _markdown_table(block)
        case Figures(items):
            return _markdown_table(Table(("figure", "value", ""), "lrr", items))
        case Code(title, text):
            return f"{escaped(title)}:\n\n" + "\n".join(f"    {line}" for line in text.splitlines())


def _markdown_table(table: Table) -> str:
    rule = ["---:" if side == "r" else "---" for side in table.align]
    head, *rows = ([_markdown_cell(cell) for cell in row] for row in (table.head, *table.rows))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _markdown_cell(cell: str | Picture) -> str:
    if isinstance(cell, str):
        return escaped(cell)
    caption = f" {escaped(cell.caption)}" if cell.caption else ""
    return f"![{escaped(cell.alt)}]({PICTURES}/{cell.name}.png){caption}"
