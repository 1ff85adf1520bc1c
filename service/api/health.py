"""`/healthz`, `/readyz`, `/info`, `/metrics`: what an operator asks."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.api.openapi import PROBLEMS
from service.api.requests import RuntimeDep
from service.api.responses import json_response, model_fields
from service.metrics import Metrics
from service.versions import library_versions

router = APIRouter(tags=["operation"])

_VERSIONS: Final = library_versions()
_LIMITS: Final = {
    "max_images",
    "max_request_bytes",
    "max_image_bytes",
    "max_pixels",
    "max_side",
    "max_k",
    "max_metadata_bytes",
}


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "alive"}


@router.get("/readyz", responses=PROBLEMS)
async def readyz(_: RuntimeDep) -> dict[str, str]:
    """The bundle is loaded and requests are answered; 503 before."""
    return {"status": "ready"}


@router.get("/info", responses=PROBLEMS)
async def info(runtime: RuntimeDep) -> Response:
    """Which network answers, by which engine and provider, within which limits."""
    manifest, settings = runtime.bundle.manifest, runtime.settings
    body: dict[str, Any] = {
        **model_fields(runtime.bundle),
        "dim": manifest.dim,
        "classes": manifest.classes,
        "pooling": manifest.pooling.model_dump(),
        "backbone": manifest.backbone.model_dump(),
        "preprocessing": manifest.preprocessing,
        "metrics": manifest.metrics,
        "engine": runtime.engine.name,
        "device": settings.device,
        "provider": runtime.engine.provider,
        "threads": settings.threads,
        "limits": settings.model_dump(include=_LIMITS),
        "versions": _VERSIONS,
    }
    return await json_response(body)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Counters and times for Prometheus."""
    counted: Metrics = request.app.state.metrics
    return Response(generate_latest(counted.registry), media_type=CONTENT_TYPE_LATEST)
