"""How long the service waits for its clients, and for how many of them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rankone.service.lingering import LingeringTransport

_SLOWEST_BYTES_PER_S: Final = 2048


class Waits:
    """Connections that we wait for, the longest first. One that takes `timeout_s` is closed.

    All have the same time, so they are over in the order in which they began, and one timer does for all: a request begins
    and ends several waits, and hardly ever meets that timer.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._until: OrderedDict[LingeringTransport, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, transport: LingeringTransport) -> bool:
        return transport in self._until

    @property
    def longest(self) -> LingeringTransport | None:
        """The one that we have waited for longest."""
        return next(iter(self._until), None)

    def begin(self, transport: LingeringTransport) -> None:
        """Waits for this one, from now on if it has been waited for before."""
        loop = asyncio.get_running_loop()
        self.end(transport)
        self._until[transport] = loop.time() + self._timeout_s
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._close_late)

    def end(self, transport: LingeringTransport) -> None:
        """Waits for it no more, if it was waited for."""
        self._until.pop(transport, None)

    def _close_late(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        while (late := self.longest) is not None:
            if (left_s := self._until[late] - loop.time()) > 0:
                self._timer = loop.call_later(left_s, self._close_late)
                return
            self.end(late)
            late.abort()


class Patience:
    """How long we wait for a client, and for how many: shared by the connections of one server.

    Args:
        timeout_s: for the headers of a request to arrive, again for its body, for the next request of a connection, and
            for the next `slowest_bytes` of an answer to be taken.
        max_connections: over that, one that we wait for is closed: first those after their last answer, then those between
            two requests, then those that do not take their answer, then those that owe us the rest of a request, and of each
            kind the one that has kept us waiting longest.
    """

    def __init__(self, timeout_s: float, max_connections: int) -> None:
        self.timeout_s, self.max_connections = timeout_s, max_connections
        self.leaving: OrderedDict[LingeringTransport, None] = OrderedDict()
        """They end by themselves."""
        self.taking: OrderedDict[LingeringTransport, None] = OrderedDict()
        """They have more of an answer to take than we keep for them, and none of it was taken since."""
        self.idle, self.receiving = Waits(timeout_s), Waits(timeout_s)

    @property
    def slowest_bytes(self) -> float:
        """What a client takes of an answer in `timeout_s` at least."""
        return _SLOWEST_BYTES_PER_S * self.timeout_s

    def forget(self, transport: LingeringTransport) -> None:
        """Waits for it no more."""
        self.idle.end(transport)
        self.receiving.end(transport)
        self.leaving.pop(transport, None)
        self.taking.pop(transport, None)

    def make_room(self, newcomer: LingeringTransport) -> None:
        """Closes a connection that we wait for, and not the newest."""
        leaving, taking = (next(iter(them), None) for them in (self.leaving, self.taking))
        for longest in (leaving, self.idle.longest, taking, self.receiving.longest):
            if longest is not None and longest is not newcomer:
                self.forget(longest)  # it leaves by itself only later, and the next newcomer needs room of its own
                longest.abort()
                return
