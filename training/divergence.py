"""Notices that phase 2 destroys what the network has learned: a loss far above that of the start, step after step."""

from __future__ import annotations

import math
from typing import Final

from rankone.model.errors import RankoneError

MAX_RETURNS: Final = 3
"""How often phase 2 goes back to the best network before it ends with that."""

NUM_STEPS: Final = 20
"""Steps whose median loss has to be too high: a single batch says little, and a ruined network is right by chance."""

_TIMES: Final = 2.0
_SHARE_OF_CHANCE: Final = 0.5


class Diverged(RankoneError, ArithmeticError):
    """A loss or a gradient that is not finite, or a loss that stays far above that of the start.

    Args:
        where: phase, epoch and step, in words.
        reason: the fault, in a few words.
        advice: what to do where training cannot go back.
    """

    def __init__(self, where: str, reason: str, advice: str = "") -> None:
        super().__init__(f"{where}: {reason}. {advice}".rstrip())
        self.reason = reason


def highest_loss(start: float, num_classes: int) -> float:
    """The loss that training must not stay above: twice that of the start, and at least half of what guessing costs.

    A classifier that fits its training images by heart starts near 0, where twice the loss would mean nothing.

    Args:
        start: mean cross entropy when the phase begins.
        num_classes: guessing costs log(num_classes).
    """
    return max(_TIMES * start, _SHARE_OF_CHANCE * math.log(num_classes))
