"""A report as one HTML file that needs nothing else: pictures and style inside, no script, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from importlib import resources

from rankone.training.report.blocks import Block, Code, Document, Figures, Picture, Section, Table, Text
from rankone.training.report.clean import one_line

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Asked of the browser: were something let through that should have been escaped, it could load and run nothing."""


def html(document: Document) -> str:
    """The whole file."""
    style = resources.files("rankone.training.report").joinpath("report.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{place}">{_text(s.title)}</a>' for place, s in enumerate(document.sections, 1))
    body = "".join(_section(place, section) for place, section in enumerate(document.sections, 1))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(document.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header><h1>{_text(document.title)}</h1><p>{_text(document.subtitle)}</p><nav>{links}</nav></header>\n"
        f"<main>{body}</main>\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    return escape(one_line(text))


def _section(place: int, section: Section) -> str:
    return f'\n<section id="{place}"><h2>{_text(section.title)}</h2>\n{"".join(_blocks(section))}</section>\n'


def _blocks(section: Section) -> Iterator[str]:
    for block in section.blocks:
        yield _block(block) + "\n"


def _block(block: Block) -> str:
    match block:
        case Text(words, "heading"):
            return f"<h3>{_text(words)}</h3>"
        case Text(words, kind):
            return f'<p class="{kind}">{_text(words)}</p>'
        case Picture():
            return f"<figure>{_picture(block)}</figure>"
        case Table():
            return _table(block)
        case Figures(items):
            return f'<dl class="figures">{"".join(_figure(*item) for item in items)}</dl>'
        case Code(title, text):
            return f"<details><summary>{_text(title)}</summary><pre>{escape(text)}</pre></details>"


def _figure(name: str, value: str, beside: str) -> str:
    return f"<div><dt>{_text(name)}</dt><dd>{_text(value)}<small>{_text(beside)}</small></dd></div>"


def _table(table: Table) -> str:
    sides = ["number" if side == "r" else "words" for side in table.align]
    head = "".join(f'<th class="{side}">{_text(name)}</th>' for name, side in zip(table.head, sides, strict=True))
    rows = "".join(
        "<tr>"
        + "".join(f'<td class="{side}">{_cell(cell)}</td>' for cell, side in zip(row, sides, strict=True))
        + "</tr>"
        for row in table.rows
    )
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(cell: str | Picture) -> str:
    return _picture(cell) if isinstance(cell, Picture) else _text(cell)


def _picture(picture: Picture) -> str:
    width = round(int.from_bytes(picture.light[16:20]) / picture.scale)  # of the PNG's header
    image = f'<img src="{_data(picture.light)}" width="{width}" alt="{_text(picture.alt)}">'
    if picture.dark is not None:
        dark = f'<source media="(prefers-color-scheme: dark)" srcset="{_data(picture.dark)}">'
        image = f"<picture>{dark}{image}</picture>"
    return image + (f"<small>{_text(picture.caption)}</small>" if picture.caption else "")


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
