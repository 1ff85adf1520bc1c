"""The app behind uvicorn, as a process."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from typing import Final

import uvicorn

from model.errors import RankoneError
from service.app import create_app
from service.settings import Settings


class OpenDoor(RankoneError, ValueError):
    """The service would listen to others than this machine, without keys."""


_GRACE_S: Final = 10
"""Seconds for requests in work when the end is asked for; a body that never comes does not keep the process."""


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM.

    Raises:
        OpenDoor: the address can be reached from outside, and nobody said that this is meant.
        BundleError, EngineError, IndexProblem: what kept the service from becoming ready.
    """
    check_address(settings)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    failures: list[Exception] = []

    def end(failure: Exception) -> None:
        failures.append(failure)
        server.should_exit = True

    app = create_app(settings, end)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )
    server.run()
    if failures:
        raise failures[0]


def check_address(settings: Settings) -> None:
    """Refuses an address that others can reach while anybody may use the service, unless that is said to be meant.

    Raises:
        OpenDoor: with what to do.
    """
    if not settings.allow_anonymous and not _is_loopback(settings.host):
        raise OpenDoor(
            f"host {settings.host} can be reached from outside and there are no keys: set allow_anonymous "
            "(--allow-anonymous, RANKONE_ALLOW_ANONYMOUS=true) if that is meant, or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
