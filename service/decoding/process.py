"""A decode worker as the service sees it: a process, a socket to it, and the one image it is working on."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, cast

from rankone.model.preprocessing import ImageRejected, Limits, Preprocessing, UndecodableImage
from rankone.service.batching.job import Task
from rankone.service.decoding.slots import Slots
from rankone.service.decoding.worker import ANSWER, ASK, DONE, READY, REJECTIONS

_MODULE: Final = "rankone.service.decoding.worker"
_MAX_BODY: Final = 1 << 20
"""Of an answer: a thumbnail, or a sentence."""


@dataclass(frozen=True)
class DecodeLimits:
    """What decoding one image may cost."""

    image: Limits
    memory_bytes: int
    timeout_s: float


class WorkerProcess(asyncio.Protocol):
    """Started by `start`; `on_free` is called when it can take an image, `on_end` once when the process is gone.

    An image that ends the process, takes longer than the limit, or makes it answer as it should not, is refused as one that
    cannot be decoded.
    """

    def __init__(
        self,
        limits: DecodeLimits,
        on_free: Callable[[WorkerProcess], None],
        on_end: Callable[[WorkerProcess], None],
        on_decoded: Callable[[Task, ImageRejected | None], None],
    ) -> None:
        self._limits = limits
        self._on_free, self._on_end, self._on_decoded = on_free, on_end, on_decoded
        self._received = bytearray()
        self._is_ready = False
        self._task: Task | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reason = "the decoder crashed on it"
        self._is_killed = False
        self.process: subprocess.Popen[bytes]
        self._transport: asyncio.Transport

    async def start(self, spec: Preprocessing, slots: Slots) -> None:
        """Starts the process; `on_free` tells when it is ready.

        Raises:
            OSError: there is no room for another process, or for its socket.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self.process = self._spawn(spec, slots, theirs.fileno())
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()  # which ends the process, if there is one
            raise

    def decode(self, task: Task) -> None:
        """Sends it an image whose slot is lent. Only while it is free."""
        assert self._task is None
        assert task.slot is not None
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(self._limits.timeout_s, self._too_slow)
        self._transport.writelines([ASK.pack(task.slot, task.job.wants_thumbnails, len(task.data)), task.data])

    def stop(self) -> None:
        """Lets the process end."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by type

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < ANSWER.size:
            return
        outcome, length = ANSWER.unpack_from(self._received)
        if length > _MAX_BODY or not self._is_expected(outcome) or len(self._received) > ANSWER.size + length:
            self._kill("the decoder answered as none does")  # an image may have taken it over
        elif len(self._received) == ANSWER.size + length:
            body = bytes(self._received[ANSWER.size :])
            self._received.clear()
            self._take(outcome, body)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self.process.kill()
        if self._task is not None:
            self._finish(UndecodableImage(self._reason))
        self._on_end(self)

    def _is_expected(self, outcome: int) -> bool:
        if self._is_ready:
            return self._task is not None and (outcome == DONE or outcome in REJECTIONS)
        return outcome == READY

    def _take(self, outcome: int, body: bytes) -> None:
        if not self._is_ready:
            self._is_ready = True
        elif outcome == DONE:
            self._finish(None, body)
        else:
            self._finish(REJECTIONS[outcome](body.decode(errors="replace")))
        if not self._is_killed:  # it may have answered in the moment in which its time was up
            self._on_free(self)

    def _spawn(self, spec: Preprocessing, slots: Slots, link: int) -> subprocess.Popen[bytes]:
        """Takes a few milliseconds, on the event loop: in a thread, what it hands on could be closed under it."""
        options = {
            "spec": asdict(spec),
            "limits": asdict(self._limits.image),
            "memory_bytes": self._limits.memory_bytes,
            "slots": slots.descriptor,
            "count": slots.count,
            "socket": link,
        }
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", _MODULE, json.dumps(options)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            pass_fds=(link, slots.descriptor),
            stdin=subprocess.DEVNULL,
        )

    def _finish(self, error: ImageRejected | None, thumbnail: bytes = b"") -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        assert task is not None
        task.thumbnail = thumbnail or None
        self._on_decoded(task, error)

    def _too_slow(self) -> None:
        self._kill(f"decoding it takes longer than {self._limits.timeout_s:g} s")

    def _kill(self, reason: str) -> None:
        self._reason, self._is_killed = reason, True
        self.process.kill()
