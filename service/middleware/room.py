"""Images that there is no room for, refused on a request's headers: reading them would take from those that there is."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from rankone.service.context import current
from rankone.service.inference.admission import QueueFull
from rankone.service.routes.problems import busy, problem_response
from rankone.service.runtime import Runtime

_TAKE_IMAGES: Final = frozenset({"/embed", "/classify", "/search", "/v1/embeddings"})
"""And nothing else; the routes of an index take vectors too, which need no room."""


class RoomMiddleware:
    """Answers 429 while there is not room for one image more; whether there is for all of a request is seen with its body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in _TAKE_IMAGES:
            runtime: Runtime | None = scope["state"]["runtime"]
            try:
                if runtime is not None:
                    runtime.inference.check_room()
            except QueueFull as full:
                current().route = scope["path"]
                await problem_response(busy(full), scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)
