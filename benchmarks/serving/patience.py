"""How long to look, and how long to wait, for a network that takes so long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_LOADS: Final = (0.25, 0.5, 0.75, 0.9, 1.0, 1.5, 3.0)
_LOADS_OF_A_SLOW_ONE: Final = (3.0,)
_SIDE_BY_SIDE: Final = (0.5, 0.75, 0.9, 1.0)
_SLOW_S: Final = 0.2


@dataclass(frozen=True)
class Patience:
    """How long is looked and waited, by the seconds that the engine takes for one image."""

    image_s: float

    @property
    def turn_s(self) -> float:
        """In which there is always more to do."""
        return max(1.5, 8 * self.image_s)

    @property
    def turns(self) -> int:
        """Of those."""
        return 20 if self.is_long else 60

    @property
    def in_time_s(self) -> float:
        """An answer that comes later is worth nothing to whoever asked; the service is told so."""
        return 25 * self.image_s

    @property
    def is_long(self) -> bool:
        """The network is so slow that everything would take hours: fewer points and arrivals, nobody who means ill."""
        return self.image_s >= _SLOW_S

    @property
    def loads(self) -> tuple[float, ...]:
        """Parts of the capacity."""
        return _LOADS_OF_A_SLOW_ONE if self.is_long else _LOADS

    @property
    def side_by_side(self) -> tuple[float, ...]:
        """Parts of the capacity at which all are measured at once: a slow network has so few requests that a minute decides."""
        return _SIDE_BY_SIDE if self.is_long else ()

    @property
    def rounds(self) -> int:
        """Of every load; who goes first takes turns, as no machine stays as it is for the minutes of a whole table."""
        return 2 if self.is_long else 6

    def open_s(self, rate: float) -> float:
        """Of all rounds: for 1,100 arrivals, enough for the 99.9th percentile, or 160 of a slow network, for the 99th.

        In each round a queue over the capacity becomes so long that nobody is in time any more, and stays so for a while.
        """
        return max(self.rounds * max(10.0, 3 * self.in_time_s), (160 if self.is_long else 1100) / rate)
