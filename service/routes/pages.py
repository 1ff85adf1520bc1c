"""For browsers: `GET /`, the page for people, and `GET /docs`, every operation, which `/openapi.json` describes for programs.

Their files come with this installation, and from no other host.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse

from rankone.service.addresses import ends_with
from rankone.service.errors import Problem
from rankone.service.routes.openapi import PUBLIC, described
from rankone.service.routes.requests import NO_QUERY
from rankone.service.routes.responses import cached_response

_PAGE: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_WEB: Final = Path(str(files("rankone.service"))) / "web"
FILES: Final = {path.name: path.read_bytes() for path in sorted(_WEB.iterdir()) if path.suffix in _TYPES}
"""The contents of each file of the page by its name."""
ADDRESSES: Final = frozenset({"/", *(f"/web/{name}" for name in FILES if name != _PAGE)})
"""All paths of the page."""
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the browser may load: files of this service, and pictures that the reader chose."""
_ASKED_AGAIN: Final = "no-cache"
"""The browser keeps the files and asks whether they changed, so that all of them are of one version."""

_SWAGGER: Final = Path(str(files("fastapi_offline"))) / "static"
_SCRIPT: Final = "swagger-ui-bundle.js"
_STYLE: Final = "swagger-ui.css"
_NO_ICON: Final = "data:,"
_DOCS_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)
"""What the browser may load: nothing from another host, whatever a later Swagger UI asks for."""
_CACHED: Final = "public, max-age=86400"

OPEN: Final = PUBLIC | ADDRESSES | {"/openapi.json", "/docs", f"/docs/{_SCRIPT}", f"/docs/{_STYLE}"}
"""Paths that are answered without a key."""

router = APIRouter(include_in_schema=False, dependencies=[NO_QUERY])


@router.get("/")
async def page(request: Request) -> Response:
    """The page. Its addresses are relative, so behind a prefix it is sent only under an address that ends with a slash."""
    if not ends_with(request.scope, "/"):
        return RedirectResponse(f"{request.state.prefix.rpartition('/')[2]}/")
    return _file(_PAGE, request)


@router.get("/web/{name}")
async def part_of_page(name: str, request: Request) -> Response:
    """The modules, the style and the icon of the page."""
    if f"/web/{name}" not in ADDRESSES:
        raise Problem(404, f"there is no {name!r} among the files of the page")
    return _file(name, request)


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """The document, with the path of the service as the client sees it, and whether it needs a key."""
    needs_key = request.app.state.settings.keys is not None
    return JSONResponse(described(request.app.openapi(), request.state.prefix, needs_key=needs_key))


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The operations. The addresses are relative, so that they work behind a proxy that puts the service under a path."""
    up = "../" if ends_with(request.scope, "/") else ""
    answer = get_swagger_ui_html(
        openapi_url=f"{up}openapi.json",
        title=request.app.title,
        swagger_js_url=f"{up}docs/{_SCRIPT}",
        swagger_css_url=f"{up}docs/{_STYLE}",
        swagger_favicon_url=_NO_ICON,
    )
    answer.headers["Content-Security-Policy"] = _DOCS_POLICY
    return answer


@router.get("/docs/{name}")
async def part_of_docs(name: str) -> Response:
    """The script and the style of the operations' page: Swagger UI."""
    if name not in (_SCRIPT, _STYLE):
        raise Problem(404, f"there is no {name!r} among the parts of /docs")
    return FileResponse(_SWAGGER / name, headers={"Cache-Control": _CACHED})


def _file(name: str, request: Request) -> Response:
    response = cached_response(FILES[name], _TYPES[Path(name).suffix], request, _ASKED_AGAIN)
    response.headers["Content-Security-Policy"] = _PAGE_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
