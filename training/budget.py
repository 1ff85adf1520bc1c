"""The time that a training may take, over all its interruptions."""

from __future__ import annotations

import math
import time

from rankone.training.processes import Processes


class Budget:
    """Counts the seconds of a training from those that it had `spent_s` before; without `minutes`, there is no limit."""

    def __init__(self, minutes: float | None, spent_s: float, processes: Processes) -> None:
        self._limit_s = None if minutes is None else 60 * minutes
        self._before_s, self._processes, self._began = spent_s, processes, time.monotonic()

    @property
    def spent_s(self) -> float:
        """Seconds; 0 without a limit, which needs no count."""
        return 0.0 if self._limit_s is None else self._before_s + time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        """Seconds by the clock of the main process, so that all processes decide alike; infinite without a limit."""
        if self._limit_s is None:
            return math.inf
        (left_s,) = self._processes.from_main(self._limit_s - self.spent_s)
        return left_s
