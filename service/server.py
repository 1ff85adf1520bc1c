"""The app behind uvicorn, as a process: how it starts, and how it ends without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import resource
import socket
from functools import partial
from ipaddress import ip_address
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from rankone.model.errors import RankoneError
from rankone.service import logs
from rankone.service.app import create_app
from rankone.service.patience import Patience
from rankone.service.protocol import PatientProtocol
from rankone.service.settings import Settings

logger = logging.getLogger("rankone")


class OpenDoor(RankoneError, ValueError):
    """The service would listen to others than this machine, without keys."""


class Server(uvicorn.Server):
    """uvicorn, which stops listening only after `drain_s`, and ends at once at a second signal.

    Meanwhile `/readyz` answers 503 and every answer closes its connection, so that a client that keeps its connection does
    not send the next request into one that is being closed.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_s: float) -> None:
        super().__init__(config)
        self._app, self._drain_s = app, drain_s
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, *arguments: Any, **options: Any) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(*arguments, **options)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes in what the kernel has accepted for us before it stops listening: closing alone would reset it."""
        assert self._loop is not None
        listeners = [socket.socket(fileno=os.dup(sock.fileno())) for server in self.servers for sock in server.sockets]
        for server in self.servers:
            server.close()
        for listener in listeners:
            with listener, contextlib.suppress(OSError):  # BlockingIOError: there are no more
                listener.setblocking(False)
                for _ in range(self.config.backlog):
                    accepted, _ = listener.accept()
                    await self._loop.connect_accepted_socket(self._protocol, accepted)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        if self._app.state.service.is_draining:
            os._exit(128 + sig)  # what was acknowledged is on disk, and somebody does not want to wait
        self._app.state.service.is_draining = True
        self._captured_signals.append(sig)
        logger.info("draining: answering what has come in, for up to %g s", self._drain_s)
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_s, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM.

    Raises:
        OpenDoor: the address can be reached from outside, and nobody said that this is meant.
        KeyFileError, TracesMissing: what was asked for cannot be had.
        BundleError, EngineError, IndexProblem, DecodersFailed: what kept the service from becoming ready.
    """
    check_address(settings)
    logs.configure(settings.log_format)
    _allow_many_connections()
    failures: list[Exception] = []

    def end(failure: Exception) -> None:
        failures.append(failure)
        server.should_exit = True

    app = create_app(settings, end)
    patience = Patience(settings.receive_timeout_s, settings.max_connections)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        ws="none",
        http=cast("type[PatientProtocol]", partial(PatientProtocol, patience=patience)),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(settings.receive_timeout_s) + 1,  # uvicorn's own; the protocol's comes first
        timeout_graceful_shutdown=settings.grace_s,
    )
    server = Server(config, app, settings.drain_s)
    server.run()
    if failures:
        raise failures[0]


def check_address(settings: Settings) -> None:
    """Refuses an address that others can reach while anybody may use the service, unless that is said to be meant.

    Raises:
        OpenDoor: with what to do.
    """
    if settings.keys is None and not settings.allow_anonymous and not _is_loopback(settings.host):
        raise OpenDoor(
            f"host {settings.host} can be reached from outside and there are no keys: make some (`rankone keys add`, --keys), "
            "set allow_anonymous (--allow-anonymous, RANKONE_ALLOW_ANONYMOUS=true) if that is meant, or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _allow_many_connections() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
