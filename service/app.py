"""The app: routes, what stands before them, and the loading of what they need."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Final

from fastapi import FastAPI

from rankone.index import Indexes
from rankone.service.bundles import Models
from rankone.service.keys import KeyRing
from rankone.service.metrics import Metrics
from rankone.service.middleware.body import BodyMiddleware
from rankone.service.middleware.keys import KeysMiddleware
from rankone.service.middleware.observe import ObserveMiddleware
from rankone.service.middleware.paths import PathsMiddleware
from rankone.service.middleware.room import RoomMiddleware
from rankone.service.routes import classify, docs, embed, health, indexes, items, models, openai, problems, search
from rankone.service.settings import Settings
from rankone.service.state import ServiceState
from rankone.service.traces import Tracer

logger = logging.getLogger("rankone")


_END_S: Final = 5.0


def create_app(settings: Settings, on_failure: Callable[[Exception], None]) -> FastAPI:
    """The service for `settings`. It listens at once and answers 503 until a bundle is loaded.

    If none can be loaded, `on_failure` is called with the error: a service that can never be ready must not stay up.

    Raises:
        KeyFileError: the keys cannot be read.
        TracesMissing: traces are asked for and cannot be had.
    """
    app = FastAPI(
        title="rankone",
        version=version("rankone"),
        summary="Image embeddings by normalized bilinear pooling, class predictions and retrieval.",
        lifespan=_lifespan,
        docs_url=None,  # ours needs no other host
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # there are our own
    )
    app.state.settings, app.state.metrics, app.state.service = settings, Metrics(), ServiceState()
    app.state.tracer = Tracer()
    app.state.on_failure, app.state.indexes, app.state.models = on_failure, None, None
    problems.install(app)
    for resource in (embed, classify, search, openai, items, indexes, models, health, docs):
        app.include_router(resource.router)
    app.add_middleware(PathsMiddleware)
    app.add_middleware(RoomMiddleware)
    app.add_middleware(BodyMiddleware, max_bytes=settings.max_request_bytes, max_total_bytes=settings.max_total_bytes)
    if settings.keys is not None:
        app.add_middleware(KeysMiddleware, ring=KeyRing(settings.keys))
    app.add_middleware(
        ObserveMiddleware,
        state=app.state.service,
        tracer=app.state.tracer,
        metrics=app.state.metrics,
        default_timeout_s=settings.request_timeout_s,
        max_timeout_s=settings.max_request_timeout_s,
    )
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    loading = asyncio.create_task(_load_or_end(app))
    yield
    loading.cancel()  # where it is over, this does nothing
    await asyncio.wait([loading])
    try:
        async with asyncio.timeout(_END_S):
            if app.state.models is not None:
                await app.state.models.close()
    except TimeoutError:
        logger.warning("the engine is still at a batch; ending without it")
    if app.state.indexes is not None:
        app.state.indexes.close()
    await asyncio.to_thread(app.state.tracer.close)


async def _load_or_end(app: FastAPI) -> None:
    state = app.state
    try:
        state.indexes = await asyncio.to_thread(
            Indexes, state.settings.data, state.settings.threads, state.settings.device
        )
        state.models = Models(state.settings, state.service, state.metrics, state.indexes)
        await state.models.load_newest()
        gc.collect()
        gc.freeze()  # what is there now stays: there is no use in looking through it for garbage again and again
    except Exception as failure:  # nobody awaits this task before the end: whatever it is, it must be heard now
        state.on_failure(failure)
