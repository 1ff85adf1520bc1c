"""The images that paths stand for, sent to a service with a progress bar. What cannot be used is named and skipped."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress

from rankone.cli.output import InputError, Write
from rankone.client import Answer, AsyncClient, NewItem, OnRejection, Rejection
from rankone.model.folders import SUFFIXES, LeftOut, name_of, walk

_CONVERTED: Final = frozenset(suffix for kind in ("BMP", "TIFF", "PPM") for suffix in SUFFIXES[kind])
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


def find_images(paths: Sequence[Path], left_out: LeftOut | None = None) -> Iterator[Path]:
    """The files among `paths`, and the images in the folders among them, in order of their names.

    `left_out` counts what else the folders hold.

    Raises:
        InputError: a path that is not there.
    """
    for path in paths:
        if os.path.isdir(path):
            for found in walk(path):
                if not found.reason:
                    yield found.path
                elif left_out is not None:
                    left_out.add(found)
        elif os.path.isfile(path):
            yield path
        else:
            raise InputError(f"{name_of(path)} is {'no file and no folder' if os.path.lexists(path) else 'not there'}")


def _accept(_path: Path) -> str:
    return ""


def _as_png(data: bytes) -> bytes:
    """An image of any kind that training reads, with its colour profile, as PNG; raises OSError if it cannot be converted."""
    try:
        from rankone.model.preprocessing import OWN, ImageRejected, Limits, Preprocessing, decode, to_srgb
    except ModuleNotFoundError as error:
        raise OSError("the service does not take its kind; to convert it: pip install 'rankone[cpu]'") from error
    try:
        image = decode(data, Limits(max_bytes=_LARGE), Preprocessing(jpeg="whole"), OWN)
    except ImageRejected as error:
        raise OSError(str(error)) from error
    png = io.BytesIO()
    (to_srgb(image) if image.mode == "CMYK" else image).save(png, "PNG", compress_level=1)
    return png.getvalue()


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


def send(
    paths: Sequence[Path],
    service: Service,
    ask: Ask,
    write: Write,
    refusal: Callable[[], Callable[[Path], str]] = lambda: _accept,
) -> Sent:
    """Sends every image and gives the answers to `write`, in order; waits up to `WAIT_S` for a service that is starting.

    What the folders hold beside images is named by ending and reason first. `refusal` makes a function that says why an
    image is not sent, if it is not.

    Raises:
        InputError: there is no image, or none that could be used.
        ServiceError: the service refuses all of them, or cannot be reached.
    """
    left_out, why, num_images, num_refused = LeftOut(), refusal(), 0, 0
    for path in find_images(paths, left_out):
        num_images += 1
        if reason := why(path):
            num_refused += 1
            _say(f"{name_of(path)}: {reason}")
    for line in left_out.lines():
        _say(f"left out: {line}")
    num_images, num_refused = num_images + len(left_out.lost), num_refused + len(left_out.lost)
    if num_images == 0:
        raise InputError("no images: give files such as JPEG, PNG or WebP, or folders that hold some")
    if num_refused < num_images:
        num_refused += _send(paths, num_images - num_refused, service, ask, write, refusal())
    if num_refused == num_images:
        raise InputError("no image could be used; nothing is written")
    return Sent(num_images, num_refused)


def _send(
    paths: Sequence[Path], num_images: int, service: Service, ask: Ask, write: Write, why: Callable[[Path], str]
) -> int:
    """Returns how many images were rejected."""
    with Progress(console=Console(stderr=True), redirect_stdout=False) as bar:
        sending = _Sending(bar, num_images)
        images = (ImageFile(path) for path in find_images(paths) if not why(path))
        asyncio.run(sending.run(images, service, ask, write))
    return sending.num_rejected


def _say(words: str) -> None:
    print(f"rankone: {words}", file=sys.stderr)


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
    image = source.source if isinstance(source, NewItem) else source
    assert isinstance(image, ImageFile)
    return name_of(image.path)
