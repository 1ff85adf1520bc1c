"""Which libraries answer, by the names under which they are installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

_LIBRARIES: Final = (
    ("rankone",),
    ("fastapi",),
    ("onnxruntime-gpu", "onnxruntime"),
    ("faiss-gpu", "faiss-cpu"),
    ("numpy",),
    ("pillow",),
)
"""Each with its alternatives: a machine without a GPU may have the smaller builds, as the image `cpu` does."""


def library_versions() -> dict[str, str]:
    """Name -> version of what decides the numbers of a service."""
    return dict(map(first_installed, _LIBRARIES))


def first_installed(alternatives: Sequence[str]) -> tuple[str, str]:
    """Name and version of the first of the alternatives that is installed.

    Raises:
        PackageNotFoundError: none of them is.
    """
    *preferred, last = alternatives
    for name in preferred:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return last, version(last)
