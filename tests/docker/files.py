"""The files of the images and of compose, read as the tools read them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

VARIABLE: Final = re.compile(r"\$\{(\w+)(:-([^}]*))?(:\?[^}]*)?\}")
"""A variable of a compose file, with its default or its error."""


def compose(**variables: str) -> dict[str, Any]:
    """The compose file with these variables, and the defaults of all others."""
    text = VARIABLE.sub(lambda found: variables.get(found[1], found[3] or ""), TEXT)
    read: dict[str, Any] = yaml.safe_load(text)
    return read


def services(**variables: str) -> dict[str, dict[str, Any]]:
    """Services by name."""
    found: dict[str, dict[str, Any]] = compose(**variables)["services"]
    return found


def assignments(name: str) -> dict[str, str]:
    """Variable -> value of an environment file, those behind a `#` too: what would hold if they stood before it."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.lstrip("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line))


def pinned(path: str) -> dict[str, set[tuple[str, str]]]:
    """Package -> its (version, marker) in a lock; there are two where Python's version decides."""
    found: dict[str, set[tuple[str, str]]] = {}
    for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
        if pin := re.match(r"([\w.-]+)==([^ ;]+)(?: ; (.*?))? \\$", line):
            found.setdefault(pin[1], set()).add((pin[2], pin[3] or ""))
    return found
