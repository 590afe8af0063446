"""PolicyAgent: a policy made from its configuration alone, whose call on an observation also draws the action.

In: whatever `policysmith.build` takes. Out: an `ActorCritic`; a TensorDict given to it gains `action` and `value`.
"""

from __future__ import annotations

from typing import Any, Self, TypeVar

from tensordict import TensorDictBase
from tensordict.nn import InteractionType, interaction_type
from torch import Tensor

from policysmith.api import build
from policysmith.compile.executors import Executor
from policysmith.config.signatures import options_of
from policysmith.errors import PolicysmithError
from policysmith.policy.actor_critic import ActorCritic, _mask, _observation
from policysmith.policy.stateful import StatefulActorCritic

__all__ = ["PolicyAgent", "StatefulPolicyAgent"]

A = TypeVar("A", bound="PolicyAgent")
GREEDY = (InteractionType.DETERMINISTIC, InteractionType.MODE, InteractionType.MEAN)


class PolicyAgent(ActorCritic):
    """An actor-critic from its configuration; one that remembers is a `StatefulPolicyAgent`.

    `agent(tensordict)` writes `action`, `action_log_prob` and `value` beside what every policy writes (parameters by
    name, `state_value`). It draws the action, or under tensordict's `set_interaction_type` takes the best one. All
    other calls are the policy's own. `components` are the live ones, `executor` runs them (section `execution`).
    Arguments and errors are those of `policysmith.build`.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """An agent that remembers, where the configuration does; classes derived from this one stay what they are."""
        if cls is not PolicyAgent or not (args or kwargs):  # copies and pickles are made without arguments
            return super().__new__(cls)
        policy = build(*args, **kwargs)
        agent = super().__new__(_kind_for(cls, policy))
        agent.__dict__["_built"] = policy
        return agent

    @options_of(build)
    def __init__(self, **options: Any) -> None:
        built = self.__dict__.pop("_built", None)
        self._adopt(built or build(**options))

    @classmethod
    def of(cls, policy: ActorCritic) -> Self:
        """An agent over a policy's own plan and live components, say of one that was loaded."""
        agent = super().__new__(_kind_for(cls, policy))
        agent._adopt(policy)
        return agent

    def _adopt(self, policy: ActorCritic) -> None:
        """Take over a policy's plan and live components."""
        _kind_for(type(self), policy)
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


def _kind_for(kind: type[A], policy: ActorCritic) -> type[A]:
    """The class of an agent over a policy: a plain agent that must remember is a `StatefulPolicyAgent`."""
    if not isinstance(policy, StatefulActorCritic) or issubclass(kind, StatefulActorCritic):
        return kind
    if kind is not PolicyAgent:
        raise PolicysmithError(f"the configuration remembers: derive {kind.__name__} from StatefulPolicyAgent")
    return StatefulPolicyAgent
