"""The end of a connection whose client may still be sending: closed at once it would be reset, and the last answer lost."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rankone.service.patience import Patience

MOMENT_S: Final = 0.5


class LingeringTransport:
    """A transport that `close` half-closes: what is still sent is taken in and thrown away.

    It ends when the client closes too, when all answers are out and nothing has come for a moment, or when the patience is
    over; until then it is among those that make room first. RFC 9112, 9.6.
    """

    def __init__(self, transport: asyncio.Transport, patience: Patience, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._patience, self._loop = transport, patience, loop
        self._is_lingering = self._has_heard = False
        self.write = transport.write  # twice an answer; `__getattr__` is the long way

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether no further answer can be sent."""
        return self._is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """Sends what has been written, and then the end of it."""
        if not self.is_closing():
            self._is_lingering = True
            self._patience.forget(self)
            self._patience.leaving[self] = None
            self._transport.resume_reading()
            self._transport.write_eof()
            self._look(self._loop.time() + self._patience.timeout_s)

    def num_untaken(self) -> int:
        """Bytes of answers that the client's machine has not taken yet, with those that the kernel keeps for it."""
        descriptor = self._transport.get_extra_info("socket").fileno()
        (in_kernel,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
        return self._transport.get_write_buffer_size() + int(in_kernel)

    def hear(self) -> None:
        """Takes note that the client still sends."""
        self._has_heard = True

    def _look(self, until: float) -> None:
        self._has_heard = False
        self._loop.call_later(MOMENT_S, self._end_or_look, until)

    def _end_or_look(self, until: float) -> None:
        is_enough = not self._has_heard or self._loop.time() > until
        if is_enough and not self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._look(until)
