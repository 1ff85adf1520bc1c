"""The app behind uvicorn, as a process."""

from __future__ import annotations

import logging

import uvicorn

from service.app import create_app
from service.settings import Settings


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM.

    Raises:
        BundleError, EngineError, IndexProblem: what kept the service from becoming ready.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    failures: list[Exception] = []

    def end(failure: Exception) -> None:
        failures.append(failure)
        server.should_exit = True

    app = create_app(settings, end)
    server = uvicorn.Server(
        uvicorn.Config(app, host=settings.host, port=settings.port, log_config=None, access_log=False)
    )
    server.run()
    if failures:
        raise failures[0]
