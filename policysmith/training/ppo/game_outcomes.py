"""How the episodes of a rollout ended, told to every step of theirs. T steps, N environments.

In: a rollout. Out: labels and scores (T, N), as the player who acted sees them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from policysmith.training.rollout.rollout import Rollout

__all__ = ["DRAW", "LOSS", "UNKNOWN", "WIN", "final_scores", "outcome_labels"]

WIN, DRAW, LOSS, UNKNOWN = 0, 1, 2, -1


def outcome_labels(rollout: Rollout) -> Tensor:
    """(T, N) int64: `WIN`, `DRAW` or `LOSS` by the sign of the last reward of the episode that a step belongs to.

    `UNKNOWN` where the episode was cut off by a time limit, or has not ended within the rollout.
    """
    endings = DRAW - rollout.rewards.sign().long()
    return _told_before(torch.where(rollout.terminated.bool(), endings, UNKNOWN), rollout.done, UNKNOWN)


def final_scores(rollout: Rollout) -> Tensor | None:
    """(T, N): the score with which a step's episode ended, NaN where unknown; None where no episode told one."""
    if rollout.scores is None:
        return None
    nan = float("nan")
    return _told_before(torch.where(rollout.terminated.bool(), rollout.scores, nan), rollout.done, nan)


def _told_before(endings: Tensor, done: Tensor, unknown: float) -> Tensor:
    """What `endings` (T, N) says at the first end at or after each step, `unknown` where none follows."""
    steps = len(endings)
    times = torch.arange(steps, device=done.device).unsqueeze(-1)
    end = torch.where(done.bool(), times, steps).flip(0).cummin(0).values.flip(0)
    return torch.cat([endings, torch.full_like(endings[:1], unknown)]).gather(0, end)
