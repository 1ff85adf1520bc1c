"""`/healthz`, `/readyz`, `/info` and `/metrics`, for operators."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from rankone.model.findings import BUILDS, first_installed
from rankone.service.errors import Problem
from rankone.service.observe.metrics import Metrics
from rankone.service.routes.requests import NO_QUERY, RuntimeDep
from rankone.service.routes.responses import json_response, model_fields
from rankone.service.runtime import Runtime

router = APIRouter(tags=["operation"], dependencies=[NO_QUERY])

_FOR_KEYS: Final = "GET /info says why to whoever has a key"
_LIMITS: Final = {
    "max_images",
    "max_request_bytes",
    "max_image_bytes",
    "max_pixels",
    "max_side",
    "max_k",
    "max_metadata_bytes",
    "max_queue",
    "request_timeout_s",
    "max_request_timeout_s",
}
_VERSIONS: Final = dict(map(first_installed, [("rankone",), ("fastapi",), *BUILDS, ("numpy",), ("pillow",)]))


@router.get("/healthz")
async def healthz(request: Request) -> dict[str, str]:
    """The process and its workers live; 503 while the engine's thread or the last decode worker is being replaced."""
    _check(request, needs_all_decoders=False)
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(request: Request, runtime: RuntimeDep) -> dict[str, Any]:
    """Requests are answered; 503 while a bundle is loaded, while draining, and while a dead worker is replaced.

    An index that cannot be used or written is named; the reason, which may tell of files and items, only without keys.
    """
    if request.app.state.service.is_draining:
        raise Problem(503, "the service is shutting down")
    _check(request, needs_all_decoders=True)
    problems = await anyio.to_thread.run_sync(runtime.indexes.problems)
    if runtime.settings.keys is not None:
        problems = dict.fromkeys(problems, _FOR_KEYS)
    return {"status": "ready", **({"indexes": problems} if problems else {})}


def _check(request: Request, *, needs_all_decoders: bool) -> None:
    runtime: Runtime | None = request.state.runtime
    if runtime is not None and (faults := runtime.faults(needs_all_decoders=needs_all_decoders)):
        raise Problem(503, "; ".join(faults), retry_after_s=1)


@router.get("/info")
async def info(runtime: RuntimeDep) -> Response:
    """Which network answers, by which engine and provider, within which limits."""
    manifest, settings = runtime.bundle.manifest, runtime.settings
    body: dict[str, Any] = {
        **model_fields(runtime.bundle),
        "dim": manifest.dim,
        "short": None if manifest.reduction is None else manifest.reduction.model_dump(),
        "classes": manifest.classes,
        "evidence": None if manifest.evidence is None else manifest.evidence.model_dump(),
        "pooling": manifest.pooling.model_dump(),
        "backbone": manifest.backbone.model_dump(),
        "preprocessing": manifest.preprocessing,
        "metrics": manifest.metrics,
        "engine": runtime.engine.name,
        "engine_choice": runtime.why,
        "device": settings.device,
        "provider": runtime.engine.provider,
        "precision": runtime.engine.precision,
        "threads": settings.threads,
        "workers": settings.workers,
        "max_batch": settings.batch_policy.max_batch,
        "index_backend": runtime.indexes.backend,
        "index_problems": await anyio.to_thread.run_sync(runtime.indexes.problems),
        "limits": settings.model_dump(include=_LIMITS),
        "versions": {**_VERSIONS, "sqlite": sqlite3.sqlite_version},
    }
    return await json_response(body)


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
async def metrics(request: Request) -> Response:
    """Counters and times for Prometheus."""
    counted: Metrics = request.app.state.metrics
    text = await anyio.to_thread.run_sync(generate_latest, counted.registry)  # it counts items, maybe in a database
    return Response(text, media_type=CONTENT_TYPE_LATEST)
