"""The images that paths stand for, sent to a service with a progress bar. What cannot be used is named and skipped."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress

from rankone.cli.output import InputError, Write
from rankone.client import Answer, AsyncClient, NewItem, OnRejection, Rejection

_CONVERTED: Final = frozenset({".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"})
_SENT: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".gif", ".heic", ".heif", ".hif"})
WAIT_S: Final = 30.0
"""How long a command waits for a service that is starting."""
_NOTICE_S: Final = 1.0
_LARGE: Final = 1 << 30
"""Bytes of a file of the user's own."""


@dataclass(frozen=True)
class ImageFile:
    """A file to send. BMP, TIFF and PPM, which the service refuses, are sent as PNG."""

    path: Path

    def read_bytes(self) -> bytes:
        """What is sent; raises OSError if the file cannot be read or converted."""
        data = self.path.read_bytes()
        return _as_png(data) if self.path.suffix.lower() in _CONVERTED else data


Ask = Callable[[AsyncClient, Iterator[ImageFile], OnRejection], AsyncIterator[Answer[Any, Any]]]


def find_images(paths: Sequence[Path]) -> Iterator[Path]:
    """The files among `paths`, and those named as images under the folders among them, in order of their names.

    Of a folder, the names of one directory are in memory at a time, and no more.

    Raises:
        InputError: a path that is not there.
    """
    for path in paths:
        if path.is_dir():
            yield from _under(path)
        elif path.is_file():
            yield path
        else:
            raise InputError(f"{path} is not there")


def count_images(paths: Sequence[Path]) -> int:
    """How many there are.

    Raises:
        InputError: a path that is not there, or no images at all.
    """
    count = sum(1 for _ in find_images(paths))
    if count == 0:
        raise InputError("no images: give files such as JPEG, PNG or WebP, or folders that hold some")
    return count


def name_of(path: Path) -> str:
    r"""The path as text that every format can hold: bytes of it that are no UTF-8 become `\udc..`."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _as_png(data: bytes) -> bytes:
    """An image of any kind that training reads, with its colour profile, as PNG; raises OSError if it cannot be converted."""
    try:
        from rankone.model.preprocessing import OWN, ImageRejected, Limits, Preprocessing, decode, to_srgb
    except ModuleNotFoundError as error:
        raise OSError("the service does not take its kind; to convert it: pip install 'rankone[cpu]'") from error
    try:
        image = decode(data, Limits(max_bytes=_LARGE), Preprocessing(), OWN)
    except ImageRejected as error:
        raise OSError(str(error)) from error
    png = io.BytesIO()
    (to_srgb(image) if image.mode == "CMYK" else image).save(png, "PNG", compress_level=1)
    return png.getvalue()


def _under(folder: Path) -> Iterator[Path]:
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if path.is_dir():
            if not path.is_symlink():  # which may lead back up
                yield from _under(path)
        elif path.suffix.lower() in _SENT | _CONVERTED and path.is_file():
            yield path


@dataclass(frozen=True)
class Service:
    """Which service is asked."""

    url: str | None = None
    """where the service is; RANKONE_URL, or else http://127.0.0.1:8000, if not given."""
    key: str | None = None
    """its key; better in the variable RANKONE_KEY, which no list of processes shows."""


@dataclass(frozen=True)
class Sent:
    """How many images there were, and how many of them were passed over."""

    num_images: int
    num_rejected: int


def send(paths: Sequence[Path], service: Service, ask: Ask, write: Write) -> Sent:
    """Sends every image and gives the answers to `write`, in order; waits up to `WAIT_S` for a service that is starting.

    Raises:
        InputError: there is no image, or none that could be used.
        ServiceError: the service refuses all of them, or cannot be reached.
    """
    num_images = count_images(paths)
    with Progress(console=Console(stderr=True), redirect_stdout=False) as bar:
        sending = _Sending(bar, num_images)
        asyncio.run(sending.run(map(ImageFile, find_images(paths)), service, ask, write))
    if sending.num_rejected == num_images:
        raise InputError("no image could be used; nothing is written")
    return Sent(num_images, sending.num_rejected)


class _Sending:
    """One run over all images."""

    def __init__(self, bar: Progress, num_images: int) -> None:
        self.num_rejected = 0
        self._bar, self._task = bar, bar.add_task("images", total=num_images)

    async def run(self, images: Iterator[ImageFile], service: Service, ask: Ask, write: Write) -> None:
        async with AsyncClient(service.url, key=service.key) as client:
            await self._wait(client)
            async for answer in ask(client, images, self._reject):
                write(_name_of(answer.source), answer.value)
                self._bar.advance(self._task)

    async def _wait(self, client: AsyncClient) -> None:
        words = f"rankone: waiting for the service at {client.url}"
        notice = asyncio.get_running_loop().call_later(_NOTICE_S, self._print, words)
        try:
            await client.wait_until_ready(WAIT_S)
        finally:
            notice.cancel()

    def _reject(self, rejection: Rejection[Any]) -> None:
        self.num_rejected += 1
        self._print(f"rankone: {_name_of(rejection.source)}: {rejection.reason}")
        self._bar.advance(self._task)

    def _print(self, words: str) -> None:
        self._bar.console.print(words, markup=False, highlight=False, soft_wrap=True)


def _name_of(source: ImageFile | NewItem) -> str:
    return source.id if isinstance(source, NewItem) else name_of(source.path)
