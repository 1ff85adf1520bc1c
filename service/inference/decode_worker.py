"""A decode worker: a process that reads encoded images from a socket and writes their pixels into shared memory.

It imports `model.preprocessing` and the log's format, and limits its own memory before it reads the first image. An image
that takes too much processor time ends it.

    requests  <slot, with thumbnail or not, length> <encoded image>
    replies   <outcome, length> <thumbnail or reason>; the first reply is READY
"""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from rankone.model.preprocessing import (
    ImageLimits,
    ImageRejected,
    ImageTooLarge,
    Preprocessing,
    UndecodableImage,
    decode_as_stored,
    to_input,
    to_srgb,
    upright,
)
from rankone.model.preprocessing import UnsupportedImageType as Unsupported
from rankone.service.observe import logs

Images = npt.NDArray[np.float32]

REQUEST: Final = struct.Struct("<I?Q")
REPLY: Final = struct.Struct("<BI")

READY: Final = 0
DONE: Final = 1
REJECTIONS: Final[dict[int, type[ImageRejected]]] = {2: UndecodableImage, 3: ImageTooLarge, 4: Unsupported}
_CODES: Final = {kind: code for code, kind in REJECTIONS.items()}

_MAX_REASON: Final = 1000
_THUMBNAIL_SIDE: Final = 256
_THUMBNAIL_QUALITY: Final = 85


@dataclass(frozen=True)
class DecodeOptions:
    """What a worker makes of images, and what one may cost."""

    spec: Preprocessing
    """What the pixels must be."""
    limits: ImageLimits
    memory_bytes: int
    timeout_s: float
    """Of processor time."""
    log_format: logs.LogFormat = "text"


def main() -> None:
    """Runs until the service closes its end of the socket."""
    link, slots, count = map(int, sys.argv[2:])
    told = json.loads(sys.argv[1])
    spec, limits = Preprocessing(**told.pop("spec")), ImageLimits(**told.pop("limits"))
    options = DecodeOptions(spec, limits, **told)
    logs.configure(options.log_format)
    for number in (signal.SIGINT, signal.SIGTERM):  # these are for the service, which still needs us to finish its work
        signal.signal(number, signal.SIG_IGN)
    pixels = mapped(slots, count, (3, spec.size, spec.size))
    _limit_memory(options.memory_bytes)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the service is gone
        _serve(socket.socket(fileno=link), pixels, options)


def mapped(descriptor: int, count: int, shape: tuple[int, ...]) -> Images:
    """The slots behind a file descriptor, (count, *shape) float32: the same memory in every process that maps it."""
    array: Images = np.frombuffer(mmap.mmap(descriptor, 0), np.float32).reshape(count, *shape)
    return array


def thumbnail(image: Image.Image) -> bytes:
    """An image from `decode_as_stored` as a JPEG of at most 256 x 256, upright, in sRGB, without metadata.

    Shrinks `image` itself: there may be no memory for a copy.
    """
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    image = to_srgb(upright(image))
    image.info.clear()  # Pillow would write comments and profiles into the JPEG
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_THUMBNAIL_QUALITY)
    return buffer.getvalue()


@contextmanager
def processor_time(limit_s: float) -> Iterator[None]:
    """Ends the process by SIGPROF once the code within has used `limit_s` seconds of processor time, of all threads.

    Time in which the process waits for the processor does not count. No exception is raised, because a decoder in C would
    not return to handle it: the parent sees the exit status -SIGPROF.
    """
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _serve(link: socket.socket, slots: Images, options: DecodeOptions) -> None:
    requests = link.makefile("rb")
    _reply(link, READY)
    while head := requests.read(REQUEST.size):
        slot, wants_thumbnail, length = REQUEST.unpack(head)
        if len(data := requests.read(length)) < length:
            return
        try:
            with processor_time(options.timeout_s):
                image = decode_as_stored(data, options.limits, options.spec)
                to_input(image, options.spec, out=slots[slot])
                small = thumbnail(image) if wants_thumbnail else b""
        except ImageRejected as error:
            _reply(
                link,
                _CODES.get(type(error), _CODES[UndecodableImage]),
                str(error).encode(errors="replace")[:_MAX_REASON],
            )
        except MemoryError:
            reason = f"decoding it takes more than {options.memory_bytes:,} bytes of memory"
            _reply(link, _CODES[ImageTooLarge], reason.encode())
        else:
            _reply(link, DONE, small)


def _limit_memory(memory_bytes: int) -> None:
    """Allows `memory_bytes` beyond what is mapped now, and no core file, which would contain somebody's image."""
    with open("/proc/self/statm", encoding="ascii") as file:
        mapped_bytes = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped_bytes + memory_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _reply(link: socket.socket, outcome: int, body: bytes = b"") -> None:
    link.sendall(REPLY.pack(outcome, len(body)) + body)


if __name__ == "__main__":
    main()
