"""`rankone serve`, and the flags that `rankone doctor` shares with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeVar

import tyro
from pydantic import PositiveInt, ValidationError
from tyro.conf import arg

from rankone.service.environment import SettingError, explain, read_environment
from rankone.service.settings import Settings

Answer = TypeVar("Answer")

_RIVALS: Final = {"bundle": "bundles", "bundles": "bundle"}
"""Of these, one is set: a flag for one overrules the variable of the other."""


def serve(arguments: list[str]) -> None:
    """See `command`."""
    with_settings(arguments, _serve)


def with_settings(arguments: list[str], parse: Callable[[Settings, list[str]], Answer]) -> Answer:
    """What `parse` makes of the settings in the environment, and of the flags, which overrule them.

    Raises:
        SettingError: a variable or a flag has a value that its setting does not take, or some do not go together.
    """
    flags = _settings_of(arguments)
    environment = read_environment(Settings, without={*flags, *(_RIVALS[name] for name in flags if name in _RIVALS)})
    try:
        return parse(environment, arguments)
    except ValidationError as error:
        raise explain(error, Settings, flags) from error


def _serve(environment: Settings, arguments: list[str]) -> None:
    def command(
        settings: Annotated[Settings, arg(name="")] = environment,
        check: bool = False,
        cluster: bool = False,
        replicas: PositiveInt | None = None,
        indexes: bool = True,
    ) -> None:
        """Serves a bundle over HTTP. Every flag is also a variable: --max-batch is RANKONE_MAX_BATCH. Flags overrule variables.

        Args:
            settings: of the service.
            check: check settings, keys, bundle and engine, then end.
            cluster: serve by replicas on the Ray cluster whose dashboard is at RAY_DASHBOARD_ADDRESS, and return when they
                answer. Run it again with another bundle to change to it without losing a request.
            replicas: number of replicas; 1 if not given.
            indexes: whether replicas keep indexes, which must then be shared (--index).
        """
        if cluster:
            from rankone.service.cluster.deploy import deploy

            deploy(settings, replicas=replicas or 1, indexes=indexes)
            return
        if replicas is not None or not indexes:
            raise SettingError("--replicas and --no-indexes are for --cluster; one service keeps indexes")
        from rankone.service import preflight, server

        (preflight.check if check else server.serve)(settings)

    tyro.cli(command, prog="rankone serve", args=arguments)


def doctor_flags(environment: Settings, arguments: list[str]) -> tuple[Settings, bool]:
    """The flags of `rankone doctor`: those of the service, and whether it prints JSON."""

    def command(settings: Annotated[Settings, arg(name="")] = environment, json: bool = False) -> tuple[Settings, bool]:
        """Checks the installation and the settings of a service, and says how to mend each problem. Changes nothing.

        Exits with 0 if all is sound, and 1 if there are problems. Flags and variables are those of `rankone serve`.

        Args:
            settings: of the service.
            json: print JSON.
        """
        return settings, json

    return tyro.cli(command, prog="rankone doctor", args=arguments)


def _settings_of(arguments: Sequence[str]) -> set[str]:
    """The names of the settings that flags set: `max_batch` for `--max-batch 4`, `--max_batch=4` and `--no-max-batch`."""
    names = [argument[2:].partition("=")[0].replace("-", "_") for argument in arguments if argument.startswith("--")]
    return {name if name in Settings.model_fields else name.removeprefix("no_") for name in names}
