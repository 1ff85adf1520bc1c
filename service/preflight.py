"""What must be sound before a service starts. `rankone serve --check` runs these checks, and so does `rankone doctor`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from rankone.model.errors import RankoneError
from rankone.service.auth.keys import load_keys, own_key_file
from rankone.service.auth.origins import is_loopback
from rankone.service.bundle_files import check_newest, check_paths
from rankone.service.environment import misspelt
from rankone.service.observe import logs
from rankone.service.observe.traces import otlp_provider
from rankone.service.settings import Settings

logger = logging.getLogger("rankone")


class InsecureBind(RankoneError, ValueError):
    """The service would listen to other machines without keys, and anonymous access was not allowed explicitly."""


def check_address(settings: Settings) -> None:
    """Refuses an address that others can reach when there are no keys, unless `allow_anonymous` is set.

    Raises:
        InsecureBind: with what to do.
    """
    has_keys = settings.keys is not None or settings.own_keys is not None
    if not has_keys and not settings.allow_anonymous and not is_loopback(settings.host):
        raise InsecureBind(
            f"host {settings.host} can be reached from outside and there are no keys: make some (`rankone keys add`, --keys), "
            "set allow_anonymous (--allow-anonymous, RANKONE_ALLOW_ANONYMOUS=true) if that is meant, or listen on 127.0.0.1"
        )


def check_keys(settings: Settings) -> int | None:
    """The number of keys, None for a service without any, or whose first start will make one.

    Raises:
        KeyFileError: the file cannot be read.
    """
    path = settings.keys or own_key_file(settings)
    if path is None or (path != settings.keys and not path.exists()):
        return None
    return len(load_keys(path))


CHECKS: Final[Mapping[str, Callable[[Settings], Any]]] = {
    "address": check_address,
    "bundle": check_paths,
    "keys": check_keys,
    "traces": lambda _: otlp_provider(),
    "engine": check_newest,
}
"""What keeps a service from starting, in the order in which it is checked. Each raises a RankoneError."""


def check(settings: Settings) -> None:
    """Loads what `serve` would serve and ends; listens nowhere and opens no index.

    Raises:
        InsecureBind, KeyFileError, TracesMissing, BundleError, EngineError: as `serve` does.
    """
    logs.configure(settings.log_format)
    for sentence in misspelt(Settings):
        logger.warning("%s", sentence)
    found = {name: run(settings) for name, run in CHECKS.items()}
    if found["keys"] == 0:
        logger.warning("%s holds no keys, so nobody can use the service", settings.keys)
    served, manifest = found["engine"], found["engine"].bundle.manifest
    logger.info(
        "settings are good: %s %s by %s in %s", manifest.name, manifest.version, served.engine, served.precision
    )
