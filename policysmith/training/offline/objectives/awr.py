"""Advantage-weighted regression (arXiv 1910.00177). N transitions.

In: batches with rewards. Out: the likelihood of actions weighted by how much better than expected they turned out,
and the value's squared error against returns.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from policysmith.graph.plan import Plan
from policysmith.registry import register
from policysmith.training.datasets.episodes import REWARD
from policysmith.training.offline.batches import Batch, evaluate
from policysmith.training.offline.micro_batches import MicroBatch
from policysmith.training.offline.objectives.action_metrics import action_metrics
from policysmith.training.offline.objectives.learner import Learner, Loss, Start, bind, total, weights_of
from policysmith.types import Positive, Share

__all__ = ["AdvantageWeightedRegression"]


@register("awr", slot="offline_objective")
class AdvantageWeightedRegression:
    """Advantage-weighted regression (arXiv 1910.00177): imitate what turned out better than the value expected.

    Advantages are recorded returns less values. An episode that was cut off counts as if it had ended there.

    Args:
        gamma: discount of later rewards.
        temperature: the smaller, the fewer transitions are imitated.
        max_weight: the most that one transition counts.
        value_coef: weight of the value's squared error.
        normalize_advantage: whether advantages are divided by their deviation in the batch, as the authors' code does.
    """

    def __init__(
        self,
        gamma: Share = 0.99,
        temperature: Positive = 1.0,
        max_weight: Positive = 20.0,
        value_coef: Positive = 0.5,
        normalize_advantage: bool = True,
    ) -> None:
        self.gamma, self.temperature, self.max_weight = gamma, temperature, max_weight
        self.value_coef, self.normalize_advantage = value_coef, normalize_advantage

    def check(self, plan: Plan) -> None:
        """Every policy has a value."""

    def start(self, start: Start) -> Learner:
        """Needs rewards."""
        return _Regression(start, self)


class _Regression(Learner):
    def __init__(self, start: Start, options: AdvantageWeightedRegression) -> None:
        super().__init__(start.policy, bind(start, REWARD, reader="awr"))
        self.options = options
        self.returns = start.episodes.returns(options.gamma)

    def loss(self, batch: Batch) -> Loss:
        found, options = evaluate(self.policy, batch), self.options
        returns = self.returns[batch.rows].to(found.value.device)
        advantage = returns - found.value.detach()
        if "std" in batch.known:
            advantage = (advantage - batch.known["mean"]) / (batch.known["std"] + 1e-5)
        elif options.normalize_advantage and len(advantage) > 1:
            std, mean = torch.std_mean(advantage)
            advantage = (advantage - mean) / (std + 1e-5)
        weight = weights_of(advantage, options.temperature, options.max_weight)
        policy, value = -(weight * found.log_prob).mean(), 0.5 * (found.value - returns).square().mean()
        loss = total(policy + options.value_coef * value, found.aux)
        return Loss(loss, {"policy_loss": policy, "value_loss": value, "weight": weight.mean()})

    def parts(self, batch: Batch, count: int) -> list[MicroBatch]:
        """Advantages are normalised over the whole batch, so values are asked for once more, beforehand."""
        parts = super().parts(batch, count)
        if len(parts) == 1 or not self.options.normalize_advantage:
            return parts
        with torch.no_grad():
            values = torch.cat([evaluate(self.policy, part.batch).value for part in parts])
        std, mean = torch.std_mean(self.returns[batch.rows].to(values.device) - values)
        return [part._replace(batch=part.batch._replace(known={"std": std, "mean": mean})) for part in parts]

    @torch.no_grad()
    def measure(self, batch: Batch) -> Mapping[str, Tensor]:
        return action_metrics(self.policy, batch)
