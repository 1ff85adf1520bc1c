"""`GET /`: the page for people, and the files it loads. They come with this package, and from no other host."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from rankone.service.addresses import has_trailing_slash
from rankone.service.errors import Problem
from rankone.service.routes.requests import NO_QUERY
from rankone.service.routes.responses import cached_response

_FOLDER: Final = Path(str(files("rankone.service"))) / "web"
_PAGE: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FILES: Final[Mapping[str, bytes]] = MappingProxyType(
    {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}
)
"""The contents of each file by its name."""
ADDRESSES: Final = frozenset({"/", *(f"/web/{name}" for name in FILES if name != _PAGE)})
"""All paths of the page; they are answered without a key, as the documentation is."""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the browser may load: files of this service, and pictures that the reader chose."""
_ASKED_AGAIN: Final = "no-cache"
"""The browser keeps the files and asks whether they changed, so that all of them are of one version."""

router = APIRouter(include_in_schema=False, dependencies=[NO_QUERY])


@router.get("/")
async def page(request: Request) -> Response:
    """The page. Its addresses are relative, so behind a prefix it is sent only under an address that ends with a slash."""
    if not has_trailing_slash(request.scope):
        return RedirectResponse(f"{request.state.prefix.rpartition('/')[2]}/")
    return _answer(_PAGE, request)


@router.get("/web/{name}")
async def part(name: str, request: Request) -> Response:
    """The modules, the style and the icon of the page."""
    if f"/web/{name}" not in ADDRESSES:
        raise Problem(404, f"there is no {name!r} among the files of the page")
    return _answer(name, request)


def _answer(name: str, request: Request) -> Response:
    response = cached_response(FILES[name], _TYPES[Path(name).suffix], request, _ASKED_AGAIN)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
