"""Writes the reference from the code: commands, settings, routes and Python modules."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from rankone.__main__ import COMMANDS, run, usage
from rankone.service.app import create_app
from rankone.service.environment import PREFIX
from rankone.service.settings import Settings

_MODULES: Final = ("rankone.client", "rankone.layers")
"""What people import; the rest may change without notice."""
_HERE: Final = {"threads": "the number of cores", "workers": "the number of cores"}
"""Defaults that depend on the machine."""


def write(folder: Path) -> None:
    """Writes the four pages into a new folder."""
    folder.mkdir()
    for name, lines in {"commands": commands(), "settings": settings(), "routes": routes(), "python": python()}.items():
        (folder / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def commands() -> Iterator[str]:
    """What `--help` prints, of each command and of what it has below it."""
    yield from ("# Commands", "", *_block(usage()))
    for name in COMMANDS:
        text = help_of(name)
        yield from ("", f"## rankone {name}", "", *_block(text))
        inner = re.search(r"\{([a-z,-]+)\}", text.partition("\n\n")[0])
        for part in inner[1].split(",") if inner else ():
            yield from ("", f"### rankone {name} {part}", "", *_block(help_of(name, part)))


def help_of(*words: str) -> str:
    """What `rankone WORDS --help` prints, 100 columns wide."""
    printed = io.StringIO()
    with (
        contextlib.redirect_stdout(printed),
        patch.dict(os.environ, {"COLUMNS": "100"}),
        contextlib.suppress(SystemExit),
    ):
        run(words[0], [*words[1:], "--help"])
    assert printed.getvalue().startswith("usage: "), words
    return printed.getvalue()


def settings() -> Iterator[str]:
    """A table of every setting of the service."""
    yield from ("# Settings", "", "Each is a flag of `rankone serve` and a variable. Flags overrule variables.", "")
    yield from ("| flag | variable | default | |", "|---|---|---|---|")
    for name, field in Settings.model_fields.items():
        default = _HERE.get(name) or _written(field.get_default(call_default_factory=True))
        described = _cell(field.description or "")
        yield f"| `--{name.replace('_', '-')}` | `{PREFIX}{name.upper()}` | {default} | {described} |"


def routes() -> Iterator[str]:
    """Every route of the OpenAPI document, with its parameters and bodies."""
    yield from (
        "# Routes",
        "",
        "What a running service says at `/openapi.json`. [The API](../docs/api.md) explains it with examples.",
    )
    document = create_app(Settings(), on_failure=_raise).openapi()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield from ("", f"## {method.upper()} {path}", "", operation.get("description", operation["summary"]), "")
            yield from _parameters(operation.get("parameters", []))
            bodies = operation.get("requestBody", {}).get("content", {})
            if bodies:
                yield f"Body: {', '.join(f'`{kind}`' for kind in bodies)}"


def python() -> Iterator[str]:
    """Directives that make Sphinx read the docstrings."""
    yield "# Python"
    for module in _MODULES:
        yield from (
            "",
            f"## {module}",
            "",
            "```{eval-rst}",
            f".. automodule:: {module}",
            "   :members:",
            "   :imported-members:",
            "```",
        )


def _parameters(parameters: list[dict[str, Any]]) -> Iterator[str]:
    if not parameters:
        return
    yield from ("| parameter | in | type | default |", "|---|---|---|---|")
    for one in parameters:
        default = _written(one["schema"]["default"]) if "default" in one["schema"] else ""
        yield f"| `{one['name']}` | {one['in']} | {_cell(_type(one['schema']))} | {default} |"
    yield ""


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    low, high = schema.get("minimum"), schema.get("maximum")
    limits = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
    return ", ".join([schema.get("type", "any"), *limits])


def _written(value: Any) -> str:
    if value is None or value in ("", ()):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _block(text: str) -> list[str]:
    return ["```text", text.rstrip(), "```"]


def _raise(failure: Exception) -> None:
    raise failure
