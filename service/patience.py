"""How long the service waits for its clients, and for how many of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.lingering import LingeringTransport


class Patience:
    """How long we wait for a client, and for how many: shared by the connections of one server.

    Args:
        timeout_s: for the headers of a request to arrive, again for its body, for the next request of a connection, and
            for some of an answer to be taken.
        max_connections: over that, one that we wait for is closed: first those between two requests or after the last, then
            those that owe us the rest of one, and of each kind the one that has kept us waiting longest.
    """

    def __init__(self, timeout_s: float, max_connections: int) -> None:
        self.timeout_s, self.max_connections = timeout_s, max_connections
        self.idle: OrderedDict[LingeringTransport, None] = OrderedDict()
        self.receiving: OrderedDict[LingeringTransport, None] = OrderedDict()

    def make_room(self, newcomer: LingeringTransport) -> None:
        """Closes a connection that we wait for, and not the newest."""
        for waiting in (self.idle, self.receiving):
            if (longest := next(iter(waiting), newcomer)) is not newcomer:
                del waiting[longest]  # it leaves by itself only later, and the next newcomer needs room of its own
                longest.abort()
                return
