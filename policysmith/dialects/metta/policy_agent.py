"""PolicyAgent: a policy made from its configuration alone, whose call on an observation also draws the action.

In: whatever `policysmith.build` takes. Out: an `ActorCritic`; a TensorDict given to it gains `action` and `value`.
"""

from __future__ import annotations

from typing import Any, Self

from tensordict import TensorDictBase
from tensordict.nn import InteractionType, interaction_type
from torch import Tensor

from policysmith.api import build
from policysmith.compile.executors import Executor
from policysmith.config.signatures import options_of
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.tensordict_edge import mask_in, observation_in

__all__ = ["PolicyAgent", "StatefulPolicyAgent"]

GREEDY = (InteractionType.DETERMINISTIC, InteractionType.MODE, InteractionType.MEAN)


class PolicyAgent(ActorCritic):
    """An actor-critic from its configuration, whether it remembers or not.

    `agent(tensordict)` writes `action`, `action_log_prob` and `value` beside what every policy writes (parameters by
    name, `state_value`). It draws the action, or under tensordict's `set_interaction_type` takes the best one. All
    other calls are the policy's own. `components` are the live ones, `executor` runs them (section `execution`).
    Arguments and errors are those of `policysmith.build`.
    """

    @options_of(build)
    def __init__(self, **options: Any) -> None:
        self._adopt(build(**options))

    @classmethod
    def of(cls, policy: ActorCritic) -> Self:
        """An agent over a policy's own plan and live components, say of one that was loaded."""
        agent = cls.__new__(cls)
        agent._adopt(policy)
        return agent

    def _adopt(self, policy: ActorCritic) -> None:
        """Take over a policy's plan and live components."""
        ActorCritic.__init__(self, policy.plan, policy.components, policy.observations, policy.actions, policy.config)
        self.strict_masks = policy.strict_masks
        self.train(policy.training)
        self.out_keys = ["action", "action_log_prob", "value", *self.out_keys]

    @property
    def executor(self) -> Executor:
        """What runs the components: `SequentialExecutor` or `ParallelExecutor`."""
        return self.runtime.executor

    def _entries(self, tensordict: TensorDictBase, params: Tensor, value: Tensor) -> dict[str, Any]:
        entries = {**super()._entries(tensordict, params, value), "value": value}
        if tensordict.ndim > 1:
            return entries  # a sequence is there to learn from: its actions were taken
        observation = observation_in(tensordict)
        masks = self._masks(observation, self.observations.read(observation), mask_in(tensordict))
        actions, log_prob = self.actions.choose(params, masks, interaction_type() in GREEDY)
        return {**entries, "action": self.actions.structure(actions), "action_log_prob": log_prob}


StatefulPolicyAgent = PolicyAgent  # the name of those that remember, from when they had a class of their own
