"""Who has to leave when there are more connections than may be."""

from __future__ import annotations

from typing import cast

from service.lingering import LingeringTransport
from service.patience import Patience


class Connection:
    """As `make_room` sees one; that it is closed shows only later."""

    def __init__(self) -> None:
        self.is_aborted = False

    def abort(self) -> None:
        assert not self.is_aborted, "it makes room once"
        self.is_aborted = True


def test_every_newcomer_has_room_made_by_another() -> None:
    """Those between two requests first, then those on their way with one, and never the newcomer itself."""
    patience = Patience(30, max_connections=3)
    old, older, between, newcomer = (cast("LingeringTransport", Connection()) for _ in range(4))
    patience.receiving |= {older: None, old: None, newcomer: None}
    patience.idle[between] = None
    for leaving in (between, older, old):
        patience.make_room(newcomer)
        assert cast("Connection", leaving).is_aborted
    patience.make_room(newcomer)
    assert not cast("Connection", newcomer).is_aborted
