"""`rankone serve`."""

from __future__ import annotations

from typing import Annotated

import tyro
from tyro.conf import arg

from rankone.service.settings import Settings


def serve(arguments: list[str]) -> None:
    """See `command`."""
    environment = Settings()

    def command(settings: Annotated[Settings, arg(name="")] = environment) -> None:
        """Serves a bundle over HTTP. Every flag is also a variable: --max-batch is RANKONE_MAX_BATCH.

        Args:
            settings: of the service.
        """
        from rankone.service.server import serve as run

        run(settings)

    tyro.cli(command, prog="rankone serve", args=arguments)
