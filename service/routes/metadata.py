"""What its owner may write to an item: not too deep, not too long, and nothing that no filter could find."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

from rankone.service.routes.problems import Problem

_MAX_DEPTH: Final = 32
_ESCAPE: Final = b"\\u0000"
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape itself, and not a backslash before those letters."""


def check_metadata(metadata: Sequence[dict[str, Any]], max_bytes: int) -> None:
    """Looks through the metadata of all items of a request, which may take a second: not for the event loop.

    Its length comes before its characters, so that these cost nothing where there are far too many of them.

    Raises:
        Problem: 413 longer than `max_bytes` as JSON, with every item at fault; 422 nested too deep, or with U+0000.
    """
    for index, value in enumerate(metadata):
        if _depth(value) > _MAX_DEPTH:
            raise Problem(422, f"item {index}: metadata is nested more than {_MAX_DEPTH} levels deep")
    written = list(map(orjson.dumps, metadata))
    errors = [
        {"index": index, "reason": f"metadata of {len(text):,} bytes; at most {max_bytes:,} are accepted"}
        for index, text in enumerate(written)
        if len(text) > max_bytes
    ]
    if errors:
        raise Problem(413, f"item {errors[0]['index']}: {errors[0]['reason']}", errors)
    for index, text in enumerate(written):
        if _ESCAPE in text and _NUL.search(text):
            raise Problem(422, f"item {index}: metadata holds the character U+0000, which no filter could find")


def _depth(value: Any) -> int:
    """How deep objects and lists are nested, level by level: JSON libraries refuse to write what is too deep."""
    depth, level = 0, [value]
    while level and depth <= _MAX_DEPTH:
        containers = [part for part in level if isinstance(part, dict | list)]
        level = [inner for part in containers for inner in (part.values() if isinstance(part, dict) else part)]
        depth += bool(containers)
    return depth
