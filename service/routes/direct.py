"""The short way to the routes that take images: FastAPI looks for parameters and dependencies at a cost of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError, create_model
from starlette.types import Receive, Scope, Send

from rankone.service.routes.requests import runtime_of


class DirectRoute(APIRoute):
    """A route that calls its function by itself: FastAPI spends a sixth of the time of a request on solving dependencies.

    In the document it is like every other, and what is wrong with a request is said by FastAPI, who then gets it.

    Args:
        path: as for every route.
        endpoint: takes `request`, `runtime` and parameters of the query, all of those with a default.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        parameters = inspect.signature(endpoint).parameters
        required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
        if required != ["request", "runtime"]:
            raise TypeError(f"{endpoint.__name__} takes {', '.join(required)}, and not just a request and a runtime")
        hints = get_type_hints(endpoint, include_extras=True)
        fields: Any = {name: (hints[name], it.default) for name, it in parameters.items() if name not in required}
        self._query: type[BaseModel] = create_model("Query", **fields)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        if scope["method"] not in (self.methods or ()) or (query := self._parsed(request)) is None:
            await super().handle(scope, receive, send)
            return
        response = await self.endpoint(request, await runtime_of(request), **query)
        await response(scope, receive, send)

    def _parsed(self, request: Request) -> dict[str, Any] | None:
        """The parameters that the query sets; None where it cannot be read."""
        if not request.scope["query_string"]:
            return {}
        try:
            return vars(self._query.model_validate(dict(request.query_params)))
        except ValidationError:
            return None
