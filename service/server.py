"""The app behind uvicorn, as a process: how it starts, and how it ends without losing a request."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import os
import resource
import socket
import struct
from types import FrameType
from typing import Final

import uvicorn

from rankone.service.app import create_app
from rankone.service.auth.keys import with_own_keys
from rankone.service.bundle_files import check_paths
from rankone.service.bundles import ServiceState
from rankone.service.environment import misspelt
from rankone.service.listening import listen, url_of
from rankone.service.observe import logs
from rankone.service.preflight import check_address
from rankone.service.settings import Settings

logger = logging.getLogger("rankone")

_LAST_REQUEST_S: Final = 0.5
"""Between refusing connections and closing idle ones, so that connections are accepted and requests on their way are read."""
_SO_ATTACH_FILTER: Final = 26
"""Linux's, which `socket` does not name."""
_INSTRUCTIONS: Final = ctypes.create_string_buffer(
    b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (0x30, 0, 0, 13),  # load the flags of the TCP header
            (0x45, 0, 1, 0x02),  # SYN?
            (0x06, 0, 0, 0),  # drop
            (0x06, 0, 0, 0xFFFFFFFF),  # pass
        )
    )
)
_DROP_SYN: Final = struct.pack("@HP", 4, ctypes.addressof(_INSTRUCTIONS))
"""A classic BPF program (`struct sock_fprog`) that drops the packets which open a connection."""


class Server(uvicorn.Server):
    """uvicorn, which at the first signal drains before it stops listening, and at a second one ends at once.

    While it drains, `/readyz` answers 503 and every answer closes its connection.
    """

    def __init__(self, config: uvicorn.Config, state: ServiceState, drain_s: float) -> None:
        super().__init__(config)
        self._state, self._drain_s = state, drain_s
        self._num_signals = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._num_signals += 1
        if self._num_signals > 1:
            os._exit(128 + sig)  # acknowledged writes are on disk
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._state.is_draining = True
        if self._state.runtime is not None:
            logger.info("draining: waiting %g s for load balancers to stop sending requests", self._drain_s)
            await asyncio.sleep(self._drain_s)
        self._refuse_new_connections()
        await asyncio.sleep(_LAST_REQUEST_S)
        await super().shutdown(sockets)

    def _refuse_new_connections(self) -> None:
        """Has the kernel drop what would open a connection: closing a listener would reset those that wait to be accepted."""
        for server in self.servers:
            for listener in server.sockets:
                with socket.socket(fileno=os.dup(listener.fileno())) as same:
                    same.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _DROP_SYN)


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM.

    Raises:
        InsecureBind: the address can be reached from outside, there are no keys and no `allow_anonymous`.
        CannotListen: another process has the port, or the host is not this machine's.
        KeyFileError, TracesMissing: the keys cannot be read; the libraries for traces are not installed.
        BundleError, EngineError, IndexProblem, DecodersFailed: what kept the service from becoming ready.
    """
    logs.configure(settings.log_format)
    for sentence in misspelt(Settings):
        logger.warning("%s", sentence)
    check_address(settings)
    check_paths(settings)
    settings = with_own_keys(settings)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # it says "running" before anything can be answered
    _allow_many_connections()
    failures: list[Exception] = []

    def end(failure: Exception) -> None:
        failures.append(failure)
        server.should_exit = True

    app = create_app(settings, end)
    listeners = listen(settings.host, settings.port)
    logger.info("loading; %s answers 503 until then", url_of(listeners[0]))
    config = uvicorn.Config(
        app,
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
    server.run(listeners)
    if failures:
        raise failures[0]


def _allow_many_connections() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
