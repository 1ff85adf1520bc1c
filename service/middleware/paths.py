"""Paths that would be taken for others: the pattern of a route ends in `$`, which also matches before a line break."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from rankone.service.routes.problems import Problem, problem_response


class PathsMiddleware:
    """Answers 404 to a path with a line break, so that `/metrics%0A` is not `/metrics`, nor the item `a%0A` the item `a`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "\n" in scope["path"]:
            problem = Problem(404, "there is nothing whose path holds a line break (%0A); send it without")
            await problem_response(problem, scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)
