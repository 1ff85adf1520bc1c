"""`rankone serve`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import tyro
from pydantic import ValidationError
from tyro.conf import arg

from rankone.service.environment import explain, read_environment
from rankone.service.settings import Settings

_RIVALS: Final = {"bundle": "bundles", "bundles": "bundle"}
"""Of these, one is set: a flag for one overrules the variable of the other."""


def serve(arguments: list[str]) -> None:
    """See `command`."""
    flags = _settings_of(arguments)
    environment = read_environment(Settings, without={*flags, *(_RIVALS[name] for name in flags if name in _RIVALS)})

    def command(settings: Annotated[Settings, arg(name="")] = environment, check: bool = False) -> None:
        """Serves a bundle over HTTP. Every flag is also a variable: --max-batch is RANKONE_MAX_BATCH. Flags overrule variables.

        Args:
            settings: of the service.
            check: check settings, keys, bundle and engine, then end.
        """
        from rankone.service import server

        (server.check if check else server.serve)(settings)

    try:
        tyro.cli(command, prog="rankone serve", args=arguments)
    except ValidationError as error:
        raise explain(error, Settings, flags) from error


def _settings_of(arguments: Sequence[str]) -> set[str]:
    """The names of the settings that flags set: `max_batch` for `--max-batch 4`, `--max_batch=4` and `--no-max-batch`."""
    names = [argument[2:].partition("=")[0].replace("-", "_") for argument in arguments if argument.startswith("--")]
    return {name if name in Settings.model_fields else name.removeprefix("no_") for name in names}
