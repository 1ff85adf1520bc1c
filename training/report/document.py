"""What a report is made of, before it is HTML or Markdown. Every string is plain text: the writers escape it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal


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


def one_line(text: str) -> str:
    """Printable characters on one line: no line breaks, no control characters, none that turn the direction of writing."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
