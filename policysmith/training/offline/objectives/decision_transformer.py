"""Return-conditioned cloning, as decision transformers learn (arXiv 2106.01345). R rows of the data.

In: batches whose observations hold the return that followed. Out: the likelihood of the actions, given that return.
"""

from __future__ import annotations

from torch import Tensor

from policysmith.errors import ConfigError, Problem
from policysmith.graph.plan import Plan
from policysmith.registry import register
from policysmith.training.datasets.episodes import OBSERVATION, REWARD, Episodes
from policysmith.training.environments.return_to_go import LEAF
from policysmith.training.offline.data import OfflineData
from policysmith.training.offline.objectives.bc import Cloning
from policysmith.training.offline.objectives.learner import Learner, Start

__all__ = ["DecisionTransformer"]


@register("decision_transformer", slot="offline_objective")
class DecisionTransformer:
    """Cloning of actions given the return that followed them (arXiv 2106.01345).

    The policy reads the return as a leaf `return_to_go` of its observation; in the environment the wrapper
    `{type: ReturnToGo, target: …}` tells it what is still wanted. With a memory of type `transformer_memory` or `gtrxl`
    that is a decision transformer, whose tokens are an observation and a return each: those of the paper have the
    action before, too, which here is up to the observation.

    Args:
        entropy_coef: how much the policy's mean entropy (in nats) is worth.
    """

    def __init__(self, entropy_coef: float = 0.0) -> None:
        self.entropy_coef = entropy_coef

    def check(self, plan: Plan) -> None:
        """Raise `ConfigError` for a policy that does not read the return."""
        if f"{OBSERVATION}.{LEAF}" not in plan.inputs:
            message = f"decision_transformer needs an observation {LEAF!r}: add the environment wrapper ReturnToGo"
            raise ConfigError([Problem("training.objective", message)])

    def start(self, start: Start) -> Learner:
        """Needs rewards."""
        self.check(start.policy.plan)
        start.episodes.require([REWARD], "decision_transformer")
        data = OfflineData(start.episodes, start.policy, _given(start.episodes))
        return Cloning(start.policy, data, self.entropy_coef)


def _given(episodes: Episodes) -> dict[str, Tensor]:
    """The returns, whatever return was wanted when the data was recorded; and the observation under its new name."""
    given = {f"{OBSERVATION}.{LEAF}": episodes.returns(1.0).unsqueeze(1)}
    plain = episodes.columns.get(OBSERVATION)
    return given if plain is None else given | {f"{OBSERVATION}.{OBSERVATION}": plain}
