"""Normalizes request addresses: a proxy's prefix, trailing slashes, HEAD and OPTIONS."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from rankone.service.errors import Problem, problem_response
from rankone.service.settings import ROOT_PATH


class ForwardedMiddleware(ProxyHeadersMiddleware):
    """Applies X-Forwarded-For, -Proto and -Prefix, if a trusted proxy sends them, to address, scheme and prefix."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope.get("client") and scope["client"][0] in self.trusted_hosts:
            sent = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-prefix"]
            if len(sent) == 1 and re.fullmatch(ROOT_PATH, prefix := sent[0].rstrip("/")):
                scope["root_path"] = prefix
        await super().__call__(scope, receive, send)


class AddressMiddleware:
    """Maps all spellings of a route's address to one, so that everything below sees only that.

    The prefix and one trailing slash are taken off the path; a proxy may have taken off the prefix already. An encoded slash
    (%2F) belongs to the name before it. HEAD is answered as GET without its body, and OPTIONS with the methods that there are.

    Args:
        methods: the methods of a path, none if it is no route.
        root_path: the prefix where no proxy names one.
    """

    def __init__(self, app: Any, methods: Callable[[str], Sequence[str]], root_path: str) -> None:
        self._app, self._methods, self._root_path = app, methods, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        prefix = scope.get("root_path") or self._root_path
        scope["root_path"] = ""  # Starlette would take it off again
        scope["state"] = {**scope.get("state", {}), "prefix": prefix}
        path = scope["path"]
        if path == prefix or path.startswith(f"{prefix}/"):
            path = path.removeprefix(prefix) or "/"
        scope["path"] = path[:-1] if len(path) > 1 and ends_with(scope, "/") else path
        if scope["method"] == "OPTIONS":
            await self._options(scope["path"])(scope, receive, send)
        elif scope["method"] == "HEAD":
            await self._head(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _options(self, path: str) -> Response:
        if path == "*":  # any part of the server: a ping
            return Response(status_code=204)
        if not (methods := self._methods(path)):
            return problem_response(Problem(404, "Not Found"), path)
        return Response(status_code=204, headers={"Allow": ", ".join(methods)})

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        get = {**scope, "method": "GET"}  # uvicorn must not see it: it counts the bytes of the answer to a GET
        try:
            await self._app(get, receive, send_head)
        finally:
            scope["route"] = get.get("route")


def ends_with(scope: Scope, ends: str | tuple[str, ...]) -> bool:
    """Whether the path, as it was sent, ends in one of these ways: `%2F` is no slash here."""
    sent: bytes = scope.get("raw_path", scope["path"].encode())
    return sent.decode("latin-1").endswith(ends)
