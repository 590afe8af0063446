"""When a run is saved on the way: by the clock, or every so many steps.

In: an algorithm's options, and how long saves took. Out: whether it is time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from policysmith.training.algorithm import CHECKPOINT_MINUTES

__all__ = ["CheckpointSchedule"]

SHARE = 0.01  # of the time of a run, which saves by the clock may take at most


class CheckpointSchedule:
    """By `checkpoint_every` steps where that is set, else every `checkpoint_minutes` (null: not at all).

    By the clock, saves that take longer than a hundredth of the interval stretch it, so that they cost a hundredth of
    the run. An algorithm of one's own need not have these options.
    """

    def __init__(self, algorithm: Any, clock: Callable[[], float] = time.monotonic) -> None:
        minutes = getattr(algorithm, "checkpoint_minutes", CHECKPOINT_MINUTES)
        self.every: int | None = algorithm.checkpoint_every
        self.keep: int = getattr(algorithm, "keep_checkpoints", 0)
        self._interval = None if minutes is None else 60.0 * minutes
        self._clock = clock
        self._last, self._cost = clock(), 0.0

    def is_due(self, step: int, saved_at: int) -> bool:
        """Whether to save at this step, after the one at `saved_at`."""
        if self.every is not None:
            return step - saved_at >= self.every
        if self._interval is None or step == saved_at:
            return False
        return self._clock() - self._last >= max(self._interval, self._cost / SHARE)

    def saved(self, seconds: float) -> None:
        """Note a save, and how long it took."""
        self._last, self._cost = self._clock(), seconds
