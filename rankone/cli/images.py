"""The images that paths stand for, sent to a service with a progress bar. What cannot be used is named and skipped."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from rich.console import Console
from rich.progress import Progress
from tyro.conf import arg

from rankone.cli.errors import say
from rankone.cli.output import InputError, Write
from rankone.client import Answer, AsyncClient, NewItem, OnRejection, Rejection
from rankone.model.folders import SUFFIXES, LeftOut, name_of
from rankone.service.job.sources import images_at

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


Ask = Callable[[AsyncClient, Sequence[ImageFile], OnRejection], AsyncIterator[Answer[Any, Any]]]


def _as_png(data: bytes) -> bytes:
    """An image of any kind that training reads, with its colour profile, as PNG; raises OSError if it cannot be converted."""
    try:
        from rankone.model.preprocessing import OWN, ImageLimits, ImageRejected, Preprocessing, decode, to_srgb
    except ModuleNotFoundError as error:
        raise OSError("the service does not take its kind; to convert it: pip install 'rankone[cpu]'") from error
    try:
        image = decode(data, ImageLimits(max_bytes=_LARGE), Preprocessing(jpeg="whole"), OWN)
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


At = Annotated[Service, arg(name="")]
"""The flags --url and --key."""
HERE: Final = Service()


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
    refusal: Callable[[Path], str] = lambda _: "",
) -> Sent:
    """Sends every image and gives the answers to `write`, in order; waits up to `WAIT_S` for a service that is starting.

    What the folders hold beside images is named by ending and reason first. `refusal` says why an image is not sent, or
    nothing.

    Raises:
        NoSuchSource: a path is not there.
        InputError: there is no image, or none that could be used.
        ServiceError: the service refuses all of them, or cannot be reached.
    """
    left_out, images = LeftOut(), list[ImageFile]()
    num_rejected = 0
    for path in (image for place in paths for image in images_at(place, left_out)):
        if reason := refusal(path):
            num_rejected += 1
            say(f"{name_of(path)}: {reason}")
        else:
            images.append(ImageFile(path))
    for line in left_out.lines():
        say(f"left out: {line}")
    num_rejected += len(left_out.lost)
    num_images = num_rejected + len(images)
    if num_images == 0:
        raise InputError("no images: give files such as JPEG, PNG or WebP, or folders that hold some")
    if images:
        num_rejected += asyncio.run(_send(images, service, ask, write))
    if num_rejected == num_images:
        raise InputError("no image could be used; nothing is written")
    return Sent(num_images, num_rejected)


async def _send(images: Sequence[ImageFile], service: Service, ask: Ask, write: Write) -> int:
    """Returns how many images were rejected."""
    num_rejected = 0

    def tell(words: str) -> None:
        bar.console.print(f"rankone: {words}", markup=False, highlight=False, soft_wrap=True)

    def reject(rejection: Rejection[Any]) -> None:
        nonlocal num_rejected
        num_rejected += 1
        tell(f"{_name_of(rejection.source)}: {rejection.reason}")
        bar.advance(task)

    with Progress(console=Console(stderr=True), redirect_stdout=False) as bar:
        task = bar.add_task("images", total=len(images))
        async with AsyncClient(service.url, key=service.key) as client:
            notice = asyncio.get_running_loop().call_later(_NOTICE_S, tell, f"waiting for the service at {client.url}")
            try:
                await client.wait_until_ready(WAIT_S)
            finally:
                notice.cancel()
            async for answer in ask(client, images, reject):
                write(_name_of(answer.source), answer.value)
                bar.advance(task)
    return num_rejected


def _name_of(source: ImageFile | NewItem) -> str:
    image = source.source if isinstance(source, NewItem) else source
    assert isinstance(image, ImageFile)
    return name_of(image.path)
