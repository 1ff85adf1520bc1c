"""The app: its routes, the middleware before them, and the loading of bundle and indexes."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Final

from fastapi import FastAPI
from opentelemetry.trace import get_tracer
from starlette.middleware.cors import CORSMiddleware

from rankone.service import errors
from rankone.service.addresses import AddressMiddleware, ForwardedMiddleware
from rankone.service.auth.keys import KeyRing
from rankone.service.auth.middleware import KeysMiddleware
from rankone.service.auth.origins import OriginsMiddleware
from rankone.service.bundles import Models, ServiceState
from rankone.service.deadlines import DeadlineMiddleware
from rankone.service.limits import LimitsMiddleware
from rankone.service.observe.metrics import Metrics
from rankone.service.observe.middleware import ObserveMiddleware
from rankone.service.observe.traces import otlp_provider
from rankone.service.routes import embed, explain, health, indexes, items, models, openai, pages, search
from rankone.service.routes.openapi import PROBLEMS
from rankone.service.routes.requests import ONCE
from rankone.service.runtime import open_indexes
from rankone.service.settings import Settings

logger = logging.getLogger("rankone")

_END_S: Final = 5.0
_CORS_SENT: Final = ("Authorization", "Content-Type", "X-Request-Id", "X-Request-Timeout")
_CORS_READ: Final = ("Retry-After", "Server-Timing", "X-Request-Id")


def create_app(settings: Settings, on_failure: Callable[[Exception], None]) -> FastAPI:
    """The service for `settings`. It listens at once and answers 503 until a bundle is loaded.

    If none can be loaded, `on_failure` is called with the error: a service that can never be ready must not stay up.

    Raises:
        KeyFileError: the keys cannot be read.
        TracesMissing: a collector is named and the libraries are not installed.
    """
    provider = otlp_provider()
    app = FastAPI(
        title="rankone",
        version=version("rankone"),
        summary="Image embeddings by normalized bilinear pooling, class predictions and retrieval.",
        lifespan=_lifespan,
        openapi_url=None,  # ours names the prefix and the keys
        docs_url=None,  # ours needs no other host
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[ONCE],
        responses=PROBLEMS,
        telemetry={
            "tracer_provider": provider,
            "tracing": provider is not None,
            "operation_spans": False,
            "metrics": False,
            "logs": False,
            "auto_configure": False,
        },
    )
    state = ServiceState()
    app.state.settings, app.state.metrics, app.state.service = settings, Metrics(), state
    app.state.metrics.ready.set_function(lambda: state.is_ready)
    if settings.index == "local":
        app.state.metrics.watch_disk(settings.data)
    app.state.tracer_provider = provider
    app.state.on_failure, app.state.indexes, app.state.models = on_failure, None, None
    errors.install(app)
    for resource in (embed, search, explain, openai, items, indexes, models, health, pages):
        app.include_router(resource.router)
    # the last one added is the outermost
    app.add_middleware(LimitsMiddleware, state=state, settings=settings)
    if settings.keys is not None:
        app.add_middleware(KeysMiddleware, ring=KeyRing(settings.keys))
    app.add_middleware(DeadlineMiddleware, state=state, settings=settings)
    app.add_middleware(AddressMiddleware, methods=partial(errors.methods_of, app), root_path=settings.root_path)
    app.add_middleware(OriginsMiddleware, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=_CORS_SENT,
            expose_headers=_CORS_READ,
        )
    app.add_middleware(
        ObserveMiddleware, tracer=get_tracer("rankone", tracer_provider=provider), metrics=app.state.metrics
    )
    app.add_middleware(ForwardedMiddleware, trusted_hosts=settings.trusted_proxies)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    loading = asyncio.create_task(_load_or_end(app))
    yield
    loading.cancel()
    await asyncio.wait([loading])
    try:
        async with asyncio.timeout(_END_S):
            if app.state.models is not None:
                await app.state.models.close()
    except TimeoutError:
        logger.warning("the engine is still at a batch; ending without it")
    if app.state.indexes is not None:
        app.state.indexes.close()
    if app.state.tracer_provider is not None:
        await asyncio.to_thread(app.state.tracer_provider.shutdown)  # sends what has not been sent yet


async def _load_or_end(app: FastAPI) -> None:
    state = app.state
    try:
        state.indexes = await asyncio.to_thread(open_indexes, state.settings)
        state.models = Models(state.settings, state.service, state.metrics, state.indexes)
        await state.models.load_newest()
        gc.collect()
        gc.freeze()  # the collector need not look again at what stays for good
    except Exception as failure:  # nobody awaits this task before the end, so every failure must be reported now
        state.on_failure(failure)
