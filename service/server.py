"""The app behind uvicorn, as a process: how it starts, and how it ends without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import resource
import socket
from ipaddress import ip_address
from types import FrameType
from typing import Final

import uvicorn

from rankone.model.errors import RankoneError
from rankone.service.app import create_app
from rankone.service.bundles import ServiceState
from rankone.service.observe import logs
from rankone.service.settings import Settings

logger = logging.getLogger("rankone")

_MOMENT_S: Final = 0.2
"""From the last accepted connection to the end of idle ones: time to read the request that may be on its way."""


class InsecureBind(RankoneError, ValueError):
    """The service would listen to other machines without keys, and nobody said that this is meant."""


class Server(uvicorn.Server):
    """uvicorn, which at the first signal drains before it stops listening, and at a second one ends at once.

    While it drains, `/readyz` answers 503 and every answer closes its connection.
    """

    def __init__(self, config: uvicorn.Config, state: ServiceState, drain_s: float) -> None:
        super().__init__(config)
        self._state, self._drain_s = state, drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)  # acknowledged writes are on disk
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._state.is_draining = True
        logger.info("draining: load balancers have %g s to look away", self._drain_s)
        await asyncio.sleep(self._drain_s)
        await self._stop_listening()
        await asyncio.sleep(_MOMENT_S)
        await super().shutdown(sockets)

    async def _stop_listening(self) -> None:
        """Closes the listeners, then accepts what the kernel has queued: closing alone would reset those connections."""
        loop = asyncio.get_running_loop()
        listeners = [socket.socket(fileno=os.dup(sock.fileno())) for server in self.servers for sock in server.sockets]
        for server in self.servers:
            server.close()
        for listener in listeners:
            with listener, contextlib.suppress(BlockingIOError):  # the queue is empty
                listener.setblocking(False)
                for _ in range(self.config.backlog):
                    accepted, _ = listener.accept()
                    await loop.connect_accepted_socket(self._protocol, accepted)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM.

    Raises:
        InsecureBind: the address can be reached from outside, there are no keys and no `allow_anonymous`.
        KeyFileError, TracesMissing: the keys cannot be read; the libraries for traces are not installed.
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
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.max_connections + 1,  # it counts the connection that asks
        timeout_keep_alive=math.ceil(settings.receive_timeout_s),
        timeout_graceful_shutdown=settings.grace_s,
    )
    server = Server(config, app.state.service, settings.drain_s)
    server.run()
    if failures:
        raise failures[0]


def check_address(settings: Settings) -> None:
    """Refuses an address that others can reach when there are no keys, unless `allow_anonymous` is set.

    Raises:
        InsecureBind: with what to do.
    """
    if settings.keys is None and not settings.allow_anonymous and not _is_loopback(settings.host):
        raise InsecureBind(
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
