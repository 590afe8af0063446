"""Actor-critics over graphs: spaces to tensors, heads to actions, masks, and the protocol that trainers use."""

import policysmith.wrappers  # noqa: F401 - importing registers the types
from policysmith.policy import models, space_types
from policysmith.policy.actions import ActionDistribution
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.actor_critic_wrapper import ActorCriticWrapper
from policysmith.policy.board_heads import BoardPolicyHead, BoardValueHead
from policysmith.policy.expert_heads import ExpertActionHead, ExpertValueHead
from policysmith.policy.factory import build_policy
from policysmith.policy.flow_head import FlowHead
from policysmith.policy.heads import ActionHead, ValueHead
from policysmith.policy.observations import Observations
from policysmith.policy.outcome_heads import OutcomeHead, OutcomeValue, ScoreHead
from policysmith.policy.policy_state import PolicyState
from policysmith.policy.protocol import ActorCriticProtocol
from policysmith.policy.spatial_head import SpatialPolicyHead

__all__ = [
    "ActionDistribution",
    "ActionHead",
    "ActorCritic",
    "ActorCriticProtocol",
    "ActorCriticWrapper",
    "BoardPolicyHead",
    "BoardValueHead",
    "ExpertActionHead",
    "ExpertValueHead",
    "FlowHead",
    "Observations",
    "OutcomeHead",
    "OutcomeValue",
    "PolicyState",
    "ScoreHead",
    "SpatialPolicyHead",
    "ValueHead",
    "build_policy",
    "models",
    "space_types",
]
