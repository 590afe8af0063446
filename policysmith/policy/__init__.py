"""Actor-critics over graphs: spaces to tensors, heads to actions, masks, and the protocol that trainers use."""

from policysmith.policy import models
from policysmith.policy.actions import ActionDistribution
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.board_heads import BoardPolicyHead, BoardValueHead
from policysmith.policy.factory import build_policy
from policysmith.policy.heads import ActionHead, ValueHead
from policysmith.policy.observations import Observations
from policysmith.policy.protocol import ActorCriticProtocol

__all__ = [
    "ActionDistribution",
    "ActionHead",
    "ActorCritic",
    "ActorCriticProtocol",
    "BoardPolicyHead",
    "BoardValueHead",
    "Observations",
    "ValueHead",
    "build_policy",
    "models",
]
