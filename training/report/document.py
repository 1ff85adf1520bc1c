"""A report as text, pictures and tables; written as one self-contained HTML file, and as GitHub's Markdown with pictures.

Every string of a document is plain text, which the writers escape. The HTML has no script and fetches nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Final, Literal

from rankone.training.run import replace_file

PICTURES: Final = "report"
"""Folder of the pictures, beside the Markdown file."""
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""A second line of defence: even text that was not escaped could load and run nothing."""
_SPECIAL: Final = re.compile(r"[\\`*_\[\]<>|#~&!$]|(?<=:)(?=//)|(?<=www)(?=\.)", re.IGNORECASE)
"""Characters with a meaning in Markdown, and the places where a bare address would become a link."""


@dataclass(frozen=True)
class Text:
    """A paragraph; a `note` or `warning` is set apart from the others, a `heading` begins a part of a section."""

    words: str
    kind: Literal["plain", "note", "warning", "heading"] = "plain"


@dataclass(frozen=True)
class Picture:
    """A PNG file `name`.png, with another version for dark pages if it makes a difference."""

    name: str
    alt: str
    light: bytes
    dark: bytes | None = None
    caption: str = ""
    scale: float = 1.0
    """Pixels of the file for each pixel of the page."""


@dataclass(frozen=True)
class Table:
    """Cells in rows under a head; `align` holds `l` or `r` for every column."""

    head: tuple[str, ...]
    align: str
    rows: Sequence[tuple[str | Picture, ...]]


@dataclass(frozen=True)
class Figures:
    """Single figures: name, value, and its interval or a remark."""

    items: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Code:
    """A file, shown unchanged under a title."""

    title: str
    text: str


Block = Text | Picture | Table | Figures | Code


@dataclass(frozen=True)
class Section:
    """A title and the blocks under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    sections: Sequence[Section]

    @property
    def pictures(self) -> Iterator[Picture]:
        """All pictures, also those in tables."""
        for block in (block for section in self.sections for block in section.blocks):
            if isinstance(block, Picture):
                yield block
            elif isinstance(block, Table):
                yield from (cell for row in block.rows for cell in row if isinstance(cell, Picture))


def write_document(document: Document, home: Path, name: str) -> None:
    """Writes `name`.html, `name`.md and the pictures of the Markdown into the directory `home`, each whole or not at all."""
    folder = home / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for picture in document.pictures:
        replace_file(folder / f"{picture.name}.png", picture.light)
    replace_file(home / f"{name}.html", html(document).encode())
    replace_file(home / f"{name}.md", markdown(document).encode())


def one_line(text: str) -> str:
    """Printable characters on one line: no line breaks, no control characters, none that turn the direction of writing."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


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


def percent(value: float, interval: tuple[float, float] | None = None) -> str:
    """A share as it is printed, with its 95 % interval if there is one."""
    beside = "" if interval is None else f" ({100 * interval[0]:.1f} – {100 * interval[1]:.1f})"
    return f"{100 * value:.1f} %{beside}"
