"""One replica of the service: the app as it is, behind the hooks by which Ray Serve starts, changes and checks it."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from rankone.service import errors
from rankone.service.app import create_app
from rankone.service.bundle_files import check_paths
from rankone.service.cluster.application import PROXY, Arguments, Chosen, NotInCluster, check
from rankone.service.observe import logs
from rankone.service.settings import Settings

_POLL_S: Final = 0.02


class Unhealthy(RuntimeError):
    """Parts of the replica do not work; Ray Serve replaces it if that lasts."""


class Replica:
    """The service in a process of Ray Serve. The first `reconfigure` names the bundle and starts it."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._arguments = Arguments.model_validate(arguments)
        self._app: FastAPI | None = None
        self._bundle: Path | None = None
        self._failure: Exception | None = None
        self._ending = AsyncExitStack()
        if os.environ.get(PROXY) != "1":
            raise NotInCluster(
                f"Ray was started without {PROXY}=1 on this machine: its own proxy adds 10 ms to a request and ends at about "
                f"180 requests/s. End Ray and start it again with the variable, on every machine: {PROXY}=1 ray start …"
            )

    def __serve_build_asgi_app__(self) -> ASGIApp:  # the name is Ray Serve's
        """What answers requests. Ray Serve asks for it before it says which bundle to serve, so the service comes later."""

        async def answer(
            scope: Scope, receive: Receive, send: Send
        ) -> None:  # uvicorn takes no bound method for ASGI 3
            await self._answer(scope, receive, send)

        return answer

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serves the bundle that `user_config` names (`Chosen`); the one before answers until it is loaded.

        Raises:
            RankoneError, LoadConflict: it cannot be served; what was served before still is.
        """
        chosen = Chosen.model_validate(user_config).bundle
        if self._app is None:
            await self._start(chosen)
        elif chosen != self._bundle:
            await self._app.state.models.load_from(chosen)
        self._bundle = chosen

    async def check_health(self) -> None:
        """Returns if requests are answered.

        Raises:
            Unhealthy: names what does not work.
        """
        runtime = None if self._app is None else self._app.state.service.runtime
        faults = ["no bundle is loaded"] if runtime is None else runtime.faults(needs_all_decoders=False)
        if faults:
            raise Unhealthy("; ".join(faults))

    async def _start(self, bundle: Path) -> None:
        """Returns when the first bundle is served; raises what kept it from being."""
        settings = Settings(**{**self._arguments.given(), "bundle": bundle})
        check(settings, indexes=self._arguments.indexes)
        check_paths(settings)
        logs.configure(settings.log_format)
        if not self._arguments.indexes:
            settings = settings.model_copy(update={"data": self._folder_of_its_own()})
        app = create_app(settings, self._fail)
        if not self._arguments.indexes:
            app.user_middleware.append(Middleware(WithoutIndexes))  # the innermost: behind keys and addresses
        await self._ending.enter_async_context(app.router.lifespan_context(app))
        while app.state.service.runtime is None:
            if self._failure is not None:
                raise self._failure
            await asyncio.sleep(_POLL_S)
        self._app = app

    def _fail(self, failure: Exception) -> None:
        self._failure = failure

    def _folder_of_its_own(self) -> Path:
        """The folder of this replica's own data. Removes the folders of killed replicas."""
        folder = Path(tempfile.gettempdir(), f"rankone-replicas-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        for left in folder.iterdir():
            if not Path("/proc", left.name).exists():
                shutil.rmtree(left, ignore_errors=True)
        own = folder / str(os.getpid())
        self._ending.callback(shutil.rmtree, own, ignore_errors=True)
        return own

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._app is not None, "Ray Serve sends requests only to replicas that were configured"
        await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._ending.aclose()
        await send({"type": "lifespan.shutdown.complete"})


class WithoutIndexes:
    """Answers 409 to what needs an index: an item that only one replica holds would be lost."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and (path in ("/search", "/indexes") or path.startswith("/indexes/")):
            problem = errors.Problem(
                409, "this service keeps no indexes (--no-indexes); it embeds, classifies and explains images"
            )
            await errors.problem_response(problem, path)(scope, receive, send)
            return
        await self._app(scope, receive, send)
