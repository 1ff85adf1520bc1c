"""Images to a service and answers from it, with a progress bar; what cannot be used is named and passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from rankone.cli.output import Write
from rankone.cli.paths import InputError, count_images, find_images, name_of
from rankone.client import DEFAULT_URL, Answer, AsyncClient, NewItem, OnRejection, Rejection

Ask = Callable[[AsyncClient, Iterator[Path], OnRejection], AsyncIterator[Answer[Any, Any]]]


@dataclass(frozen=True)
class Service:
    """Which service is asked."""

    url: str = DEFAULT_URL
    """where the service is."""
    key: str | None = None
    """its key; better in the variable RANKONE_KEY, which no list of processes shows."""


@dataclass(frozen=True)
class Sent:
    """How many images there were, and how many of them were passed over."""

    num_images: int
    num_rejected: int


def send(paths: Sequence[Path], service: Service, ask: Ask, write: Write) -> Sent:
    """Sends every image and gives the answers to `write`, in order.

    Raises:
        InputError: there is no image, or none that could be used.
        ServiceError: the service refuses all of them, or cannot be reached.
    """
    num_images = count_images(paths)
    with Progress(console=Console(stderr=True), redirect_stdout=False) as bar:
        sending = _Sending(bar, num_images)
        asyncio.run(sending.run(find_images(paths), service, ask, write))
    if sending.num_rejected == num_images:
        raise InputError("no image could be used; nothing is written")
    return Sent(num_images, sending.num_rejected)


class _Sending:
    """One run over all images."""

    def __init__(self, bar: Progress, num_images: int) -> None:
        self.num_rejected = 0
        self._bar, self._task = bar, bar.add_task("images", total=num_images)

    async def run(self, images: Iterator[Path], service: Service, ask: Ask, write: Write) -> None:
        async with AsyncClient(service.url, key=service.key) as client:
            async for answer in ask(client, images, self._reject):
                write(_name_of(answer.source), answer.value)
                self._bar.advance(self._task)

    def _reject(self, rejection: Rejection[Any]) -> None:
        self.num_rejected += 1
        words = f"rankone: {_name_of(rejection.source)}: {rejection.reason}"
        self._bar.console.print(words, markup=False, highlight=False, soft_wrap=True)
        self._bar.advance(self._task)


def _name_of(source: Path | NewItem) -> str:
    return source.id if isinstance(source, NewItem) else name_of(source)
