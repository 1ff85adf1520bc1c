"""A decode worker: reads encoded images from its socket, writes pixels into shared slots, and says how it went.

It is started with nothing of the service but what it does with pixels, `model.preprocessing` and the descriptors it is handed,
under limits of memory that it sets itself before it reads the first byte of an image.

    asks      <slot, thumbnail or not, length> <bytes of the image>
    answers   <outcome, length> <thumbnail or reason>; first of all READY
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import struct
import sys
from typing import Any, Final

from rankone.model.preprocessing import (
    ImageRejected,
    ImageTooLarge,
    Limits,
    Preprocessing,
    UndecodableImage,
    decode,
    to_input,
)
from rankone.model.preprocessing import UnsupportedImageType as Unsupported
from rankone.service.decoding.slots import Images, mapped
from rankone.service.decoding.thumbnails import thumbnail

ASK: Final = struct.Struct("<I?Q")
ANSWER: Final = struct.Struct("<BI")

READY: Final = 0
DONE: Final = 1
REJECTIONS: Final[dict[int, type[ImageRejected]]] = {2: UndecodableImage, 3: ImageTooLarge, 4: Unsupported}
_CODES: Final = {kind: code for code, kind in REJECTIONS.items()}

_MAX_REASON: Final = 1000
_CHUNK: Final = 1 << 20


def main() -> None:
    """Runs until the other end of the socket is closed."""
    options = json.loads(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM):  # the service is told, and ends us when it has no more work
        signal.signal(number, signal.SIG_IGN)
    spec, limits = Preprocessing(**options["spec"]), Limits(**options["limits"])
    slots = mapped(options["slots"], options["count"], (3, spec.size, spec.size))
    link = socket.socket(fileno=options["socket"])
    _limit(options["memory_bytes"])
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the service is no more
        _serve(link, slots, spec, limits, options["memory_bytes"])


def _serve(link: socket.socket, slots: Images, spec: Preprocessing, limits: Limits, memory_bytes: int) -> None:
    _answer(link, READY)
    while (head := _read(link, ASK.size)) is not None:
        slot, wants_thumbnail, length = ASK.unpack(head)
        if (data := _read(link, length)) is None:
            return
        try:
            image = decode(bytes(data), limits)
            to_input(image, spec, out=slots[slot])
            small = thumbnail(image) if wants_thumbnail else b""
        except ImageRejected as error:
            _refuse(link, type(error), str(error))
        except MemoryError:
            _refuse(link, ImageTooLarge, f"decoding it takes more than {memory_bytes:,} bytes of memory")
        else:
            _answer(link, DONE, small)


def _limit(memory_bytes: int) -> None:
    """No more memory than is mapped now and `memory_bytes` for decoding; no core file of somebody's image."""
    with open("/proc/self/statm", encoding="ascii") as file:
        mapped_bytes = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped_bytes + memory_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _refuse(link: socket.socket, kind: type[ImageRejected], reason: str) -> None:
    _answer(link, _CODES.get(kind, 2), reason.encode(errors="replace")[:_MAX_REASON])


def _answer(link: socket.socket, outcome: int, body: bytes = b"") -> None:
    link.sendall(ANSWER.pack(outcome, len(body)) + body)


def _read(link: socket.socket, length: int) -> Any:
    """Exactly `length` bytes; None when the other end is closed."""
    buffer = bytearray(length)
    view, at = memoryview(buffer), 0
    while at < length:
        count = link.recv_into(view[at : at + _CHUNK])
        if count == 0:
            return None
        at += count
    return buffer


if __name__ == "__main__":
    main()
