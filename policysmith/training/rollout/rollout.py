"""Experience: what a policy met in some steps of several environments. T steps, N environments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor

from policysmith.ops.reset_state import State
from policysmith.training.nonfinite.events import NonFinite

__all__ = ["Episode", "Gatherer", "Rollout"]


class Episode(NamedTuple):
    """One finished episode: the training step at its end, its return (undiscounted) and length in steps."""

    step: int
    episode_return: float
    length: int


@dataclass
class Rollout:
    """Experience as tensors with leading axes (T, N); observations, actions and masks are lists of leaves.

    `valid` is None, or marks steps that are real transitions (under next-step autoreset one step is spent on the
    reset itself). `scores` holds `info["score"]` at the end of episodes, NaN elsewhere; it is None where no episode
    told one. For a policy with memory `first` marks steps that begin an episode, and `states` holds the state
    before some steps, by step. `skipped` is None, or marks steps left out for a number that is not finite, which are
    not valid either; `nonfinite` says where each was. `draws` are leaves as `policy.drawing` gave them, where actions
    are squashed: what is learned from in their place, since tanh rounds actions near their limits to one and the same
    number.
    """

    observations: list[Tensor]
    actions: list[Tensor]
    masks: list[Tensor]
    log_probs: Tensor
    values: Tensor
    next_values: Tensor
    rewards: Tensor
    terminated: Tensor
    done: Tensor
    valid: Tensor | None
    episodes: list[Episode] = field(default_factory=list)
    scores: Tensor | None = None
    first: Tensor | None = None
    states: dict[int, State] = field(default_factory=dict)
    skipped: Tensor | None = None
    nonfinite: list[NonFinite] = field(default_factory=list)
    draws: list[Tensor] | None = None


class Gatherer(Protocol):
    """Whoever plays and hands over rollouts: `count` episodes go on side by side, `step` counts what was played."""

    count: int
    step: int

    def collect(self, steps: int) -> Rollout:
        """`steps` steps of each."""
        ...
