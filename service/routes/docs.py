"""`GET /openapi.json` and `GET /docs`: every operation, for programs and in a browser.

Swagger UI comes from this installation, so it works without the internet.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, JSONResponse

from rankone.service.addresses import has_trailing_slash
from rankone.service.errors import Problem
from rankone.service.routes.openapi import described
from rankone.service.routes.requests import NO_QUERY

_SCRIPT: Final = "swagger-ui-bundle.js"
_STYLE: Final = "swagger-ui.css"
PARTS: Final = (_SCRIPT, _STYLE)
_FOLDER: Final = Path(str(files("fastapi_offline"))) / "static"
_NO_ICON: Final = "data:,"
_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)
"""What the browser may load: nothing from another host, whatever a later Swagger UI asks for."""
_CACHED: Final = "public, max-age=86400"

router = APIRouter(include_in_schema=False, dependencies=[NO_QUERY])


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """The document, with the path of the service as the client sees it, and whether it needs a key."""
    needs_key = request.app.state.settings.keys is not None
    return JSONResponse(described(request.app.openapi(), request.state.prefix, needs_key=needs_key))


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The page. Its addresses are relative, so that it works behind a proxy that puts the service under a path."""
    up = "../" if has_trailing_slash(request.scope) else ""
    page = get_swagger_ui_html(
        openapi_url=f"{up}openapi.json",
        title=request.app.title,
        swagger_js_url=f"{up}docs/{_SCRIPT}",
        swagger_css_url=f"{up}docs/{_STYLE}",
        swagger_favicon_url=_NO_ICON,
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


@router.get("/docs/{name}")
async def part(name: str) -> Response:
    """The script and the style of the page."""
    if name not in PARTS:
        raise Problem(404, f"there is no {name!r} among the parts of /docs")
    return FileResponse(_FOLDER / name, headers={"Cache-Control": _CACHED})
