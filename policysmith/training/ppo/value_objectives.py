"""What a value learns from: returns (`scalar`), or how games end (`multi_head`). R rows of a minibatch.

In: the tensors that the policy gave and their targets. Out: the value's share of PPO's loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from policysmith.errors import ConfigError, Problem
from policysmith.graph.plan import Plan
from policysmith.policy.outcome_heads import OUTCOME, SCORE
from policysmith.registry import PartSpec, Slot, part, register
from policysmith.training.ppo.game_outcomes import UNKNOWN, final_scores, outcome_labels
from policysmith.training.rollout.rollout import Rollout
from policysmith.types import NonNegative

__all__ = ["MultiHeadValue", "Objective", "ScalarValue", "ValueObjective", "value_objective"]

Objective = Annotated[PartSpec | str, Slot("objective")]


class ValueObjective(Protocol):
    """A loss of the value; `edges` are those of the policy's plan that it reads besides the value itself."""

    edges: Sequence[str]

    def check(self, plan: Plan) -> None:
        """Raise `ConfigError` if a policy of that plan does not have what the loss reads."""

    def targets(self, rollout: Rollout) -> list[Tensor]:
        """What a rollout teaches besides returns: columns (T, N)."""

    def loss(self, scalar: Tensor, found: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """The value's share of the loss.

        `scalar` is the weighted squared error of the value against returns, `found` the edges (R, …), `targets` (R,).
        """

    def scalars(self, found: Sequence[Tensor], targets: Sequence[Tensor]) -> dict[str, float]:
        """What a minibatch tells besides PPO's own scalars, by tag."""


@register("scalar", slot="objective")
class ScalarValue:
    """Squared error of the value against returns, weighted by `value_coef` and clipped by `value_clip` of `ppo`."""

    edges: Sequence[str] = ()

    def check(self, plan: Plan) -> None:
        """Every policy has a value."""

    def targets(self, rollout: Rollout) -> list[Tensor]:
        """Nothing besides returns."""
        return []

    def loss(self, scalar: Tensor, found: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """The error itself."""
        return scalar

    def scalars(self, found: Sequence[Tensor], targets: Sequence[Tensor]) -> dict[str, float]:
        """Nothing."""
        return {}


@register("multi_head", slot="objective")
class MultiHeadValue:
    """Cross-entropy of win/draw/loss · `outcome_coef` + squared error of the final score · `score_coef`.

    It trains the edges `value_logits` (3,) and `score_lead` (1,), of which the value is made (as `se_resnet` has them).
    A game that ended tells its outcome to every step of it in the rollout: the sign of its last reward; and its score,
    where the environment gives one as `info["score"]` at the end. Both weights are those of the whole loss.

    Args:
        outcome_coef: The weight of the outcome's cross-entropy.
        score_coef: The weight of the score's error.
    """

    edges: Sequence[str] = (OUTCOME, SCORE)

    def __init__(self, outcome_coef: NonNegative = 1.5, score_coef: NonNegative = 0.02) -> None:
        self.outcome_coef, self.score_coef = outcome_coef, score_coef

    def check(self, plan: Plan) -> None:
        """Raise `ConfigError` if a plan lacks one of the edges, or has it in another shape."""
        edges = plan.edges
        wanted = {OUTCOME: (3,), SCORE: (1,)}
        wrong = [
            f"{name!r} {shape}" + (f" (it has shape {edges[name].shape})" if name in edges else "")
            for name, shape in wanted.items()
            if name not in edges or edges[name].shape != shape
        ]
        if wrong:
            raise ConfigError(
                [
                    Problem(
                        "training.value",
                        f"multi_head trains edges that the model does not have: {' and '.join(wrong)}; use a "
                        "model that has them (se_resnet), or name components of type outcome_head and score_head so",
                    )
                ]
            )

    def targets(self, rollout: Rollout) -> list[Tensor]:
        """Labels of outcomes, and final scores where there are any."""
        scores = final_scores(rollout)
        return [outcome_labels(rollout), *([] if scores is None else [scores])]

    def loss(self, scalar: Tensor, found: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """found: logits (R, 3), score (R, 1). A zero that is part of the graph where nothing is known yet."""
        logits, score = found
        loss = self.outcome_coef * outcome_loss(logits, targets[0])
        return loss + self.score_coef * score_loss(score, targets[1]) if len(targets) > 1 else loss

    @torch.no_grad()
    def scalars(self, found: Sequence[Tensor], targets: Sequence[Tensor]) -> dict[str, float]:
        """Losses before weighting, and how often the likeliest outcome is the true one (NaN where none is known)."""
        logits, score = found
        known = targets[0] != UNKNOWN
        right = (logits.argmax(-1) == targets[0])[known].float().mean()
        told = {"losses/score_loss": score_loss(score, targets[1]).item()} if len(targets) > 1 else {}
        outcome = outcome_loss(logits, targets[0])
        return {"losses/outcome_loss": outcome.item(), "losses/outcome_accuracy": right.item(), **told}


def value_objective(value: Objective) -> ValueObjective:
    """A name or spec → the objective."""
    objective: ValueObjective = part("objective", value).build()
    return objective


def outcome_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over rows with a label: logits (R, 3), labels (R,) with -1 where unknown."""
    # The mean of torch over no row at all would be NaN.
    total = F.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="sum")
    return total / (labels != UNKNOWN).sum().clamp(min=1)


def score_loss(score: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error over rows with a target: score (R, 1), targets (R,) with NaN where unknown."""
    known = targets.isfinite()
    return torch.where(known, score.squeeze(-1) - targets, 0.0).square().sum() / known.sum().clamp(min=1)
