"""The short way to the routes that take images: FastAPI looks at the parameters of a request only where it has some."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from service.api.requests import runtime_of


class DirectRoute(APIRoute):
    """A route whose requests mostly have no query: those are answered with the defaults, and no parameter is looked for.

    To solve dependencies, FastAPI takes a sixth of what the event loop does for a request. In the document the route is like
    every other, and a request with a query goes FastAPI's way.

    Args:
        path: as for every route.
        endpoint: takes `request`, `runtime` and nothing else without a default.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        required = [name for name, it in inspect.signature(endpoint).parameters.items() if it.default is it.empty]
        if required != ["request", "runtime"]:
            raise TypeError(f"{endpoint.__name__} takes {', '.join(required)}, and not just a request and a runtime")

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["query_string"] or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
        response = await self.endpoint(request, await runtime_of(request))
        await response(scope, receive, send)
