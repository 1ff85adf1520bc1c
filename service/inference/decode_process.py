"""One decode worker as the service sees it: a process, and a socket to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from typing import Final, cast

from rankone.model.preprocessing import UndecodableImage
from rankone.service.inference.decode_worker import DONE, READY, REJECTIONS, REPLY, REQUEST, DecodeOptions
from rankone.service.inference.shared import Slots

_MODULE: Final = "rankone.service.inference.decode_worker"
_MAX_BODY: Final = 1 << 20
"""Of a reply, in bytes: thumbnails and reasons are far smaller."""
_BY_THE_CLOCK: Final = 10
"""An image may take so many times its processor time, on a busy machine: then its worker is taken to hang."""
_LEAVES_S: Final = 1.0
"""A process that ends closes its end of the socket, and is gone so soon after that."""
_OF_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""Signals from others: from the kernel for want of memory, from an operator. A crash raises none of them."""


class WorkerDied(Exception):
    """The process has ended."""


class WorkerKilled(Exception):
    """The process was killed from outside while it decoded; nothing is known against its image."""


class DecodeProcess(asyncio.Protocol):
    """Started by `start`; decodes one image at a time until `stop`, or until it dies.

    It is killed when an image takes too long, and when it sends what no worker sends: an image may have taken it over.
    """

    def __init__(self, options: DecodeOptions, slots: Slots) -> None:
        self._options, self._slots = options, slots
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = asyncio.get_running_loop().create_future()
        """Done when the process is dead."""
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._expected = {READY}
        """Outcomes that the next reply may have."""
        self._reply: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        """The outcome and the body of the next reply."""
        self._fault: str | None = None
        """Why it was killed."""

    async def start(self) -> None:
        """Starts the process and waits until it is ready.

        Raises:
            OSError: the system has no room for another process or socket.
            WorkerDied: it ended at once.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self.process = self._spawn(theirs.fileno())
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()  # which ends the process, if there is one
            raise
        await self._reply
        self._expected = set()

    async def decode(self, data: bytes, slot: int, *, wants_thumbnail: bool) -> bytes | None:
        """Writes the pixels of an image into a slot; returns its thumbnail, if one is wanted.

        Raises:
            ImageRejected: the image cannot be used, for instance because it crashed the worker, which then is dead.
            WorkerKilled: a signal from outside ended the worker.
            WorkerDied: the worker had died before.
        """
        if self.ended.done() or self._transport is None:
            raise WorkerDied
        loop = asyncio.get_running_loop()
        self._expected, self._reply = {DONE, *REJECTIONS}, loop.create_future()
        clock_s = _BY_THE_CLOCK * self._options.timeout_s
        timer = loop.call_later(clock_s, self._kill, f"decoding it takes longer than {clock_s:g} s")
        self._transport.writelines([REQUEST.pack(slot, wants_thumbnail, len(data)), data])
        try:
            outcome, body = await self._reply
        except WorkerDied:  # only now does nobody write to the slot any more
            raise self._cause_of_death() from None
        finally:
            timer.cancel()
            self._expected = set()
        if outcome == DONE:
            return body or None
        raise REJECTIONS[outcome](body.decode(errors="replace"))

    async def stop(self) -> None:
        """Ends the process; returns when it is gone."""
        if self.process is not None:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports have another type

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < REPLY.size:
            return
        outcome, length = REPLY.unpack_from(self._received)
        size = REPLY.size + length
        if outcome not in self._expected or length > _MAX_BODY or len(self._received) > size:
            self._kill("the decoder sent an invalid reply")
        elif len(self._received) == size:
            self._expected = set()
            self._reply.set_result((outcome, bytes(self._received[REPLY.size :])))
            self._received.clear()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None  # nothing more is sent while its end is awaited
        dying = asyncio.get_running_loop().run_in_executor(None, self._await_end)
        dying.add_done_callback(self._bury)

    def _await_end(self) -> None:
        """Blocks until the process is gone. One that has closed its socket and lives on is killed."""
        assert self.process is not None
        try:
            self.process.wait(_LEAVES_S)
        except subprocess.TimeoutExpired:
            self._fault = self._fault or "the decoder closed its connection"
            self.process.kill()
            self.process.wait()

    def _bury(self, _: asyncio.Future[None]) -> None:
        if not self._reply.done():
            self._reply.set_exception(WorkerDied())
        self.ended.set_result(None)

    def _cause_of_death(self) -> Exception:
        assert self.process is not None
        signal_number = -(self.process.returncode or 0)
        if self._fault is None and signal_number in _OF_OUTSIDE:
            return WorkerKilled()
        crashed = "the decoder crashed on it"
        if signal_number == signal.SIGPROF:
            crashed = f"decoding it takes longer than {self._options.timeout_s:g} s of processor time"
        return UndecodableImage(self._fault or crashed)

    def _kill(self, reason: str) -> None:
        """Kills the process; `connection_lost` follows when it is dead."""
        self._expected = set()  # a reply that is already on its way comes too late
        self._fault = self._fault or reason
        assert self.process is not None
        self.process.kill()

    def _spawn(self, link: int) -> subprocess.Popen[bytes]:
        """Blocks the event loop for a few milliseconds: in a thread, the file descriptors could be closed meanwhile."""
        descriptors = (link, self._slots.descriptor)
        numbers = map(str, (*descriptors, self._slots.count))
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", _MODULE, json.dumps(asdict(self._options)), *numbers],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
        )
