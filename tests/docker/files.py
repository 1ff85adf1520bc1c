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

VARIABLE: Final = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\+(?P<instead>[^}]*)|:\?(?P<error>[^}]*))?\}")
"""A variable of a compose file, with its default, what stands instead of it where it is set, or its error."""


def compose(**variables: str) -> dict[str, Any]:
    """The compose file with these variables, and the defaults of all others."""

    def value(found: re.Match[str]) -> str:
        given = variables.get(found["name"], found["default"] or "")
        return given if found["instead"] is None or not given else found["instead"]

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: filled(part) for key, part in node.items()}
        if isinstance(node, list):
            return [filled(part) for part in node]
        return VARIABLE.sub(value, node) if isinstance(node, str) else node

    read: dict[str, Any] = filled(yaml.safe_load(TEXT))
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
