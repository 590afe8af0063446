"""Behaviour cloning: the policy learns to choose as the data did. N transitions.

In: batches of observations and actions. Out: the mean negative log-likelihood of the actions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from policysmith.graph.plan import Plan
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import register
from policysmith.training.offline.batches import Batch, score
from policysmith.training.offline.data import OfflineData
from policysmith.training.offline.objectives.action_metrics import action_metrics
from policysmith.training.offline.objectives.learner import Learner, Loss, Start, bind, total

__all__ = ["BehaviourCloning", "Cloning"]


@register("bc", slot="offline_objective")
class BehaviourCloning:
    """Behaviour cloning: maximum likelihood of the recorded actions, of any kind, legal masks taken into account.

    The value learns nothing. `entropy_coef` keeps the policy from becoming certain of what little data shows.

    Args:
        entropy_coef: how much the policy's mean entropy (in nats) is worth.
    """

    def __init__(self, entropy_coef: float = 0.0) -> None:
        self.entropy_coef = entropy_coef

    def check(self, plan: Plan) -> None:
        """Every policy can be cloned into."""

    def start(self, start: Start) -> Learner:
        """Needs observations and actions alone."""
        return Cloning(start.policy, bind(start, reader="bc"), self.entropy_coef)


class Cloning(Learner):
    """The loss of a run that clones."""

    def __init__(self, policy: ActorCritic, data: OfflineData, entropy_coef: float) -> None:
        super().__init__(policy, data)
        self.entropy_coef = entropy_coef

    def loss(self, batch: Batch) -> Loss:
        """The mean negative log-likelihood, less what entropy is worth."""
        found = score(self.policy, batch)
        cloning = -found.log_prob.mean()
        loss = cloning
        if self.entropy_coef:
            loss = loss - self.entropy_coef * found.entropy.mean()
        return Loss(total(loss, found.aux), {"bc_loss": cloning})

    @torch.no_grad()
    def measure(self, batch: Batch) -> Mapping[str, Tensor]:
        """How like the recorded actions the policy's are."""
        return action_metrics(self.policy, batch)
