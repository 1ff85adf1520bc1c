"""The service's variables (`RANKONE_…`): which are settings, which belong to others, and which are misspelt."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource

from rankone.model.errors import RankoneError

PREFIX: Final = "RANKONE_"
_CLIENT: Final = {"KEY", "URL"}
_START: Final = {"DEMO", "TEST_BUNDLE", "TEST_S3"}
_COMPOSE: Final = {"LISTEN", "KEYS_FILE", "GPU", "MEMORY", "CPUS", "STOP_GRACE", "IMAGES", "RUN", "LOADERS"}
_BUILD: Final = {"PACKAGES", "INIT", "CA"}
_PROXY: Final = {"PROXY_RATE", "PROXY_BURST", "PROXY_CONNECTIONS", "PROXY_TIMEOUT", "HTTPS", "HTTP"}
_SECRETS: Final = {"TLS_CERTIFICATE", "TLS_KEY", "METRICS_KEY_FILE", "METRICS_KEPT", "GRAFANA"}
ELSEWHERE: Final = frozenset(_CLIENT | _START | _COMPOSE | _BUILD | _PROXY | _SECRETS)
"""Variables that the client, the tests and docker compose read; compose passes its own on to the service."""
_LINK_NAME: Final = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_LINK_VALUE: Final = re.compile(r"(tcp|udp|sctp)://.*")

SettingsT = TypeVar("SettingsT", bound=BaseSettings)


class SettingError(RankoneError, ValueError):
    """A variable or flag with a value that its setting does not take."""


class Environment(EnvSettingsSource):
    """The environment without the variables that Kubernetes sets for services named `rankone` or `rankone-…`.

    RANKONE_PORT=tcp://10.0.0.1:8000 is such a one: https://kubernetes.io/docs/concepts/services-networking/service.
    """

    def _load_env_vars(self) -> Mapping[str, str | None]:
        found = super()._load_env_vars()
        return {name: value for name, value in found.items() if not _is_link(name, value or "")}


def read_environment(settings: type[SettingsT], without: Collection[str] = ()) -> SettingsT:
    """Settings from the environment, each checked alone: flags may still change what does not go together.

    Args:
        settings: their class.
        without: names of settings whose variables are not read, because flags set them.

    Raises:
        SettingError: names every variable that is wrong, its value and why.
    """
    source, values, errors = Environment(settings), dict[str, Any](), list[str]()
    for name, field in settings.model_fields.items():
        text, _, is_complex = source.get_field_value(field, name)
        if text is None or name in without:
            continue
        kind: TypeAdapter[Any] = TypeAdapter(cast(Any, Annotated[field.annotation, field]))
        try:
            values[name] = kind.validate_python(source.prepare_field_value(name, field, text, is_complex))
        except ValidationError as error:
            errors.append(f"{variable(name)}={text}: {error.errors()[0]['msg']}")
        except ValueError as error:
            errors.append(f"{variable(name)}={text}: not JSON ({error})")
    if errors:
        raise SettingError("; ".join(errors))
    return cast(SettingsT, settings.model_construct(**values))


def explain(error: ValidationError, settings: type[BaseSettings], flags: Collection[str]) -> SettingError:
    """What is wrong with settings, and which of those that are named came from variables."""
    sentences = []
    for part in error.errors():
        field = ".".join(map(str, part["loc"]))
        sentence = part["msg"].removeprefix("Value error, ")
        if field:
            sentence = f"{field} ({part['input']}): {sentence}"
        named = [name for name in settings.model_fields if re.search(rf"\b{name}\b", sentence) and name not in flags]
        given = [f"{variable(name)}={os.environ[variable(name)]}" for name in named if os.environ.get(variable(name))]
        sentences.append(sentence + (f" ({', '.join(given)})" if given else ""))
    return SettingError("; ".join(sentences))


def misspelt(settings: type[BaseSettings]) -> list[str]:
    """A sentence for every variable `RANKONE_…` that nothing reads, with the name that is nearest."""
    known = {name.upper() for name in settings.model_fields}
    sentences = []
    for name, value in sorted(os.environ.items()):
        rest = name.upper().removeprefix(PREFIX)
        if rest == name.upper() or rest in known | ELSEWHERE or _is_link(name, value):
            continue
        nearest = get_close_matches(rest, known, n=1)
        advice = f"did you mean {PREFIX}{nearest[0]}?" if nearest else "`rankone serve --help` lists the settings"
        sentences.append(f"the variable {name} is no setting and has no effect: {advice}")
    return sentences


def variable(setting: str) -> str:
    """The name of a setting's variable."""
    return PREFIX + setting.upper()


def _is_link(name: str, value: str) -> bool:
    return _LINK_VALUE.fullmatch(value) is not None or _LINK_NAME.fullmatch(name.upper()) is not None
