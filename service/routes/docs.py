"""`GET /docs`: every operation in a browser; Swagger UI comes from this installation, so it works without the internet."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse

from rankone.service.errors import Problem
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

router = APIRouter(prefix="/docs", include_in_schema=False, dependencies=[NO_QUERY])


@router.get("")
async def docs(request: Request) -> Response:
    """The page. Its addresses are relative, so that it works behind a proxy that puts the service under a path."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=request.app.title,
        swagger_js_url=f"docs/{_SCRIPT}",
        swagger_css_url=f"docs/{_STYLE}",
        swagger_favicon_url=_NO_ICON,
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


@router.get("/{name}")
async def part(name: str) -> Response:
    """The script and the style of the page."""
    if name not in PARTS:
        raise Problem(404, f"there is no {name!r} among the parts of /docs")
    return FileResponse(_FOLDER / name, headers={"Cache-Control": _CACHED})
