"""What an algorithm tells after each iteration, to whoever watches: the display, loggers, callbacks and the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from policysmith.training.nonfinite.events import NonFinite
from policysmith.training.rollout.rollout import Episode

__all__ = ["Report"]


class Report(NamedTuple):
    """What one iteration tells: where training is, finished episodes, and scalars by TensorBoard tag.

    `nonfinite/rows` and `nonfinite/updates` are among the scalars where steps of environments or of the optimiser were
    left out.
    """

    step: int
    iteration: int
    episodes: list[Episode]
    scalars: dict[str, float]
    nonfinite: Sequence[NonFinite] = ()
    """Numbers of the environments that were left out of this iteration."""
