"""`rankone serve`."""

from __future__ import annotations

from typing import Annotated

import tyro
from tyro.conf import arg

from rankone.service.settings import Settings


def serve(arguments: list[str]) -> None:
    """See `command`."""
    environment = Settings()

    def command(settings: Annotated[Settings, arg(name="")] = environment, check: bool = False) -> None:
        """Serves a bundle over HTTP. Every flag is also a variable: --max-batch is RANKONE_MAX_BATCH.

        Args:
            settings: of the service.
            check: check settings, keys, bundle and engine, then end.
        """
        from rankone.service import server

        (server.check if check else server.serve)(settings)

    tyro.cli(command, prog="rankone serve", args=arguments)
