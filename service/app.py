"""The app: routes, middleware and the loading of what they need."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio.to_thread
from fastapi import FastAPI

from service import runtime
from service.api import classify, embed, health, indexes, items, problems, search
from service.api.limits import BodyLimitMiddleware
from service.metrics import Metrics, MetricsMiddleware
from service.settings import Settings

logger = logging.getLogger("rankone")


def create_app(settings: Settings, on_failure: Callable[[Exception], None]) -> FastAPI:
    """The service for `settings`. It listens at once and answers 503 until the bundle is loaded.

    If it cannot be loaded, `on_failure` is called with the error: a service that can never be ready must not stay up.
    """
    app = FastAPI(
        title="rankone",
        version=version("rankone"),
        summary="Image embeddings by normalized bilinear pooling, class predictions and retrieval.",
        lifespan=_lifespan,
    )
    app.state.settings, app.state.metrics = settings, Metrics()
    app.state.runtime, app.state.on_failure = None, on_failure
    problems.install(app)
    for resource in (embed, classify, search, items, indexes, health):
        app.include_router(resource.router)
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_request_bytes)
    app.add_middleware(MetricsMiddleware, metrics=app.state.metrics)
    return app


async def load(app: FastAPI) -> None:
    """Loads the bundle off the event loop and makes the app ready.

    Raises:
        BundleError, EngineError, IndexProblem: what `runtime.load` raises.
    """
    loaded = await anyio.to_thread.run_sync(runtime.load, app.state.settings, app.state.metrics)
    app.state.runtime = loaded
    logger.info("ready: %s %s", loaded.bundle.manifest.name, loaded.engine.provider)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    loading = asyncio.create_task(_load_or_end(app))
    yield
    await loading
    if app.state.runtime is not None:
        app.state.runtime.indexes.close()


async def _load_or_end(app: FastAPI) -> None:
    try:
        await load(app)
    except Exception as failure:  # nobody awaits this task before the end: whatever it is, it must be heard now
        app.state.on_failure(failure)
