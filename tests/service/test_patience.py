"""How long connections are waited for, and who has to leave when there are more than may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from rankone.service.lingering import LingeringTransport
from rankone.service.patience import Patience, Waits
from rankone.service.protocol import PatientProtocol

TIMEOUT_S = 0.1


class Connection:
    """As it is seen by who waits for it; that it is closed shows only later."""

    def __init__(self) -> None:
        self.aborted = asyncio.Event()
        self.on_abort: Callable[[Connection], None] = lambda _: None

    def abort(self) -> None:
        assert not self.aborted.is_set(), "it is closed once"
        self.aborted.set()
        self.on_abort(self)


def connections(count: int) -> list[tuple[Connection, LingeringTransport]]:
    made = [Connection() for _ in range(count)]
    return [(connection, cast("LingeringTransport", connection)) for connection in made]


@pytest.mark.anyio
async def test_every_newcomer_has_room_made_by_another() -> None:
    """Those after their last answer first, then between two requests, then those who do not take their answer, then those on
    their way with a request; never the newcomer."""
    patience = Patience(30, max_connections=3)
    (leaving, a), (between, b), (stuck, f), (older, c), (old, d), (newcomer, e) = connections(6)
    for transport in (c, d, e):
        patience.receiving.begin(transport)
    patience.idle.begin(b)
    patience.leaving[a] = patience.taking[f] = None
    for who in (leaving, between, stuck, older, old):
        patience.make_room(e)
        assert who.aborted.is_set()
    patience.make_room(e)
    assert not newcomer.aborted.is_set()


@pytest.mark.anyio
async def test_waits_end_in_the_order_in_which_they_began_last() -> None:
    waits = Waits(TIMEOUT_S)
    (first, a), (again, b), (through, c), (last, d) = made = connections(4)
    for transport in (b, a, c):
        waits.begin(transport)
    await asyncio.sleep(TIMEOUT_S / 2)
    for transport in (b, d):
        waits.begin(transport)
    waits.end(c)
    ended = list[Connection]()
    for connection, _ in made:
        connection.on_abort = ended.append
    await asyncio.wait_for(last.aborted.wait(), 30)
    assert ended == [first, again, last]
    assert not through.aborted.is_set()
    assert waits.longest is None


@pytest.mark.anyio
async def test_after_a_time_without_anybody_the_next_is_waited_for_too() -> None:
    waits = Waits(TIMEOUT_S)
    (gone, a), (late, b) = connections(2)
    waits.begin(a)
    waits.end(a)
    await asyncio.sleep(2 * TIMEOUT_S)
    waits.begin(b)
    await asyncio.wait_for(late.aborted.wait(), 30)
    assert not gone.aborted.is_set()


@pytest.mark.anyio
@pytest.mark.parametrize("seen", [[1000, 900], [1000, 700, 400, 300], [9, 9]])
async def test_who_takes_too_little_in_any_stretch_of_time_is_left(seen: list[int]) -> None:
    """Of each, the last stretch is the first with less than is asked for."""
    (connection, transport), untaken = connections(1)[0], iter(seen)
    connection.num_untaken = lambda: next(untaken)  # type: ignore[attr-defined]
    protocol = object.__new__(PatientProtocol)
    protocol.loop, protocol.transport = asyncio.get_running_loop(), transport
    protocol._patience = Patience(TIMEOUT_S, max_connections=1)
    assert 100 < protocol._patience.slowest_bytes < 300
    protocol._watch_untaken(next(untaken))
    await asyncio.wait_for(connection.aborted.wait(), 30)
    assert list(untaken) == []
