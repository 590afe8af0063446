"""PolicyAgent: a policy made from its configuration alone, whose call on an observation also draws the action.

In: whatever `policysmith.build` takes. Out: an `ActorCritic`; a TensorDict given to it gains `action` and `value`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from tensordict import TensorDictBase
from tensordict.nn import InteractionType, interaction_type
from torch import Tensor

from policysmith.api import build
from policysmith.compile.executors import Executor
from policysmith.errors import PolicysmithError
from policysmith.policy.actor_critic import ActorCritic, _mask, _observation
from policysmith.policy.stateful import StatefulActorCritic
from policysmith.registry import Registry

__all__ = ["PolicyAgent", "StatefulPolicyAgent"]

GREEDY = (InteractionType.DETERMINISTIC, InteractionType.MODE, InteractionType.MEAN)


class PolicyAgent(ActorCritic):
    """An actor-critic from its configuration; one that remembers is a `StatefulPolicyAgent`.

    `agent(tensordict)` writes `action`, `action_log_prob` and `value` beside what every policy writes (parameters by
    name, `state_value`). It draws the action, or under tensordict's `set_interaction_type` takes the best one. All
    other calls are the policy's own. `components` are the live ones, `executor` runs them (section `execution`).
    Arguments and errors are those of `policysmith.build`.
    """

    def __init__(
        self,
        config: Any,
        observation_space: Any = None,
        action_space: Any = None,
        overrides: Sequence[str] = (),
        seed: int | None = None,
        registry: Registry | None = None,
    ) -> None:
        self._become(build(config, observation_space, action_space, overrides, seed, registry))

    @classmethod
    def of(cls, policy: ActorCritic) -> Self:
        """An agent over a policy's own plan and live components, say of one that was loaded."""
        agent = cls.__new__(cls)
        agent._become(policy)
        return agent

    def _become(self, policy: ActorCritic) -> None:
        if isinstance(policy, StatefulActorCritic) and not isinstance(self, StatefulActorCritic):
            if type(self) is not PolicyAgent:
                raise PolicysmithError(
                    f"the configuration remembers: derive {type(self).__name__} from StatefulPolicyAgent"
                )
            self.__class__ = StatefulPolicyAgent
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
        observation = _observation(tensordict)
        masks = self._masks(observation, self.observations.read(observation), _mask(tensordict, None))
        actions, log_prob = self.actions.choose(params, masks, interaction_type() in GREEDY)
        return {**entries, "action": self.actions.structure(actions), "action_log_prob": log_prob}


class StatefulPolicyAgent(PolicyAgent, StatefulActorCritic):
    """A policy agent that remembers: it reads the state and `is_init`, and writes the state after under `next`.

    A TensorDict of whole sequences (B, T) gains no action.
    """
