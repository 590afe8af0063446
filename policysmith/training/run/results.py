"""What a run gives back: the policy, what it learned on the way, and the files that tell of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from policysmith.policy.actor_critic import ActorCritic
from policysmith.training.nonfinite.events import LeftOut
from policysmith.training.rollout.evaluation import EvaluationResult

__all__ = ["OfflineResult", "TrainingResult"]


@dataclass
class TrainingResult:
    """What a run gives back. `returns` holds (step, episode return) of every episode, `files` what was written.

    `notes` are sentences that it should be read with, such as why a resumed run could not go on in its episodes.

    `left_out` says what was not learned from because it was not finite. Of several processes only rank 0 writes, so
    `artifact` is None elsewhere.
    """

    policy: ActorCritic
    steps: int
    seconds: float
    returns: list[tuple[int, float]]
    artifact: Path | None = None
    evaluation: EvaluationResult | None = None
    interrupted: bool = False
    files: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass
class OfflineResult:
    """What a run gives back: `losses` by kind as (update, loss), and the last report's `metrics` by tag.

    `left_out` counts the updates whose loss or gradients were not finite; data that holds such numbers is refused. Of
    several processes only rank 0 writes, so `artifact` is None elsewhere.
    """

    policy: ActorCritic
    updates: int
    seconds: float
    losses: dict[str, list[tuple[int, float]]]
    metrics: dict[str, float]
    artifact: Path | None = None
    evaluation: EvaluationResult | None = None
    interrupted: bool = False
    files: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)
