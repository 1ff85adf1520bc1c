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

from model.preprocessing import ImageRejected, Limits, Preprocessing, UndecodableImage
from service.batching.job import Task
from service.decoding.slots import Slots
from service.decoding.worker import ANSWER, ASK, DONE, REJECTIONS

_MODULE: Final = "service.decoding.worker"


@dataclass(frozen=True)
class DecodeLimits:
    """What decoding one image may cost."""

    image: Limits
    memory_bytes: int
    timeout_s: float


class WorkerProcess(asyncio.Protocol):
    """Started by `start`; `on_free` is called when it can take an image, `on_end` once when the process is gone.

    An image that ends the process, or takes longer than the limit, is refused as one that cannot be decoded.
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
        if len(self._received) < ANSWER.size + length:
            return
        body = bytes(self._received[ANSWER.size :])
        self._received.clear()
        if outcome == DONE:
            self._finish(None, body)
        elif outcome in REJECTIONS:
            self._finish(REJECTIONS[outcome](body.decode(errors="replace")))
        if not self._is_killed:  # it may have answered in the moment in which its time was up
            self._on_free(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self.process.kill()
        if self._task is not None:
            self._finish(UndecodableImage(self._reason))
        self._on_end(self)

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
        self._reason = f"decoding it takes longer than {self._limits.timeout_s:g} s"
        self._is_killed = True
        self.process.kill()
