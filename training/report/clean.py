"""Names of classes and files come from anywhere: what of them may be printed."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Printable characters on one line: no line breaks, no control characters, none that turn the direction of writing."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
