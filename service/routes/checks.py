"""What clients send, checked before it is used: vectors and their lengths, ids, and metadata."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from rankone.model.bundle import Bundle
from rankone.model.engine import Outputs
from rankone.model.errors import RankoneError
from rankone.model.reduction import Floats, shorten
from rankone.service.errors import InputsRejected, InvalidVector, Problem

_NORM_TOLERANCE: Final = 1e-2
"""The length of a float16 embedding differs from 1 by less."""
_MAX_DEPTH: Final = 32
_NOT_IN_IDS: Final = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories."""
_ESCAPE: Final = b"\\u0000"
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape itself, and not a backslash before those letters."""
_INT64: Final = range(-(2**63), 2**63)
_INT64_DIGITS: Final = 19
_AS_DIGITS: Final = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_MAYBE_HUGE: Final = b"0" * _INT64_DIGITS
_STRING_OR_INTEGER: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|(?<![\d.eE+-])(-?\d{19,})(?![\d.eE])')
"""Strings are matched too, so that digits in them are not taken for numbers."""


def as_vectors(rows: Sequence[Sequence[float]], dim: int) -> npt.NDArray[np.float32]:
    """The rows as (n, dim) float32.

    Raises:
        InputsRejected: rows that are not of length `dim`, not finite, or whose norm is neither 1 nor 0; all are named.
    """
    vectors = np.zeros((len(rows), dim), np.float32)
    rejections: dict[int, RankoneError] = {}
    for index, row in enumerate(rows):
        if (reason := _fault(row, dim)) is not None:
            rejections[index] = InvalidVector(reason)
        else:
            vectors[index] = row
    if rejections:
        raise InputsRejected(rejections)
    return vectors


def check_dim(dim: int | None, bundle: Bundle, name: str = "dim") -> int:
    """The number of dimensions to answer with: `dim`, or that of the full embedding.

    Raises:
        Problem: 409 the bundle has no short embeddings; 422 it has none so long.
    """
    manifest = bundle.manifest
    if dim is None or dim == manifest.dim:
        return manifest.dim
    if manifest.reduction is None:
        raise Problem(
            409,
            f"{name} is {dim}, and {manifest.name} {manifest.version} has no short embeddings, only full ones of "
            f"{manifest.dim:,} numbers: make a bundle that has them with `rankone reduce BUNDLE DATA OUT`, and serve that",
        )
    if not 1 <= dim <= manifest.reduction.dim:
        raise Problem(
            422,
            f"{name} is {dim}; short embeddings have 1 to {manifest.reduction.dim:,} numbers, full ones {manifest.dim:,}",
        )
    return dim


def of_length(outputs: Outputs, dim: int) -> Floats:
    """The embeddings (n, dim) in a network's outputs; `check_dim` has accepted `dim`."""
    if dim == outputs.embedding.shape[1]:
        return outputs.embedding
    assert outputs.short is not None
    return shorten(outputs.short, dim)


def check_id(item_id: str) -> str:
    """The id of a new item, which has a URL of its own.

    Raises:
        ValueError: clients and proxies would change its path, so that a request could reach another item or the index.
    """
    if any(unicodedata.category(letter) in _NOT_IN_IDS for letter in item_id):
        raise ValueError("an id holds no control characters, line breaks or halves of surrogate pairs")
    segments = item_id.split("/")
    if "." in segments or ".." in segments:
        raise ValueError(
            "an id has no '.' or '..' between slashes: clients shorten such paths, and would reach another one"
        )
    if not segments[-1]:
        raise ValueError("an id does not end with a slash: paths with and without it are the same")
    return item_id


def check_metadata(metadata: Sequence[dict[str, Any]], max_bytes: int) -> None:
    """Checks the metadata of all items of a request. It may take a second: not for the event loop.

    Raises:
        Problem: 413 longer than `max_bytes` as JSON, all are named; 422 nested too deep, or with U+0000.
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


def check_integers(text: bytes) -> None:
    """Refuses JSON with an integer beyond 64 bits, which parsing would turn into a double. `text` must be valid JSON.

    Raises:
        Problem: 422, with the integer.
    """
    if _MAYBE_HUGE not in text.translate(
        _AS_DIGITS
    ):  # ten times as fast as the expression, and it nearly always ends here
        return
    for found in _STRING_OR_INTEGER.finditer(text):
        digits = (found[1] or b"").lstrip(b"-")
        if len(digits) > _INT64_DIGITS or (len(digits) == _INT64_DIGITS and int(found[1]) not in _INT64):
            shown = found[1][:40].decode() + ("…" if len(found[1]) > 40 else "")
            raise Problem(
                422,
                f"the integer {shown} is beyond 64 bits (-2^63 to 2^63 - 1), and would be kept as another: send a string",
            )


def _fault(row: Sequence[float], dim: int) -> str | None:
    if len(row) != dim:
        return f"{len(row)} numbers; the vectors of this index have {dim}"
    with np.errstate(over="ignore"):
        norm = float(np.linalg.norm(np.asarray(row, np.float64)))
    if not np.isfinite(norm):
        return "holds NaN, infinity or numbers too large"
    if norm and abs(norm - 1) > _NORM_TOLERANCE:
        return f"has length {norm:.4g}; send what /embed returned, of length 1"
    return None


def _depth(value: Any) -> int:
    """How deep objects and lists are nested, level by level; orjson refuses to write what is too deep."""
    depth, level = 0, [value]
    while level and depth <= _MAX_DEPTH:
        containers = [part for part in level if isinstance(part, dict | list)]
        level = [inner for part in containers for inner in (part.values() if isinstance(part, dict) else part)]
        depth += bool(containers)
    return depth
