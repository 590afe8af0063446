"""KataGo-like networks for boards: a tower that pools the whole board, with heads for moves, outcome and score."""

from __future__ import annotations

from policysmith.config.options import error_at, located
from policysmith.policy.outcome_heads import OUTCOME, SCORE
from policysmith.registry import register
from policysmith.types import Count, Share

__all__ = ["se_resnet"]


@register("se_resnet", slot="model", batch_coupled=True, board=True, spatial_actions=True)
def se_resnet(
    num_blocks: Count = 40,
    channels: Count = 256,
    se_reduction: Count = 16,
    global_pool_channels: Count = 128,
    policy_channels: Count = 32,
    value_fc_size: Count = 256,
    score_fc_size: Count = 128,
    score_blend: Share = 0.0,
) -> dict[str, object]:
    """Residual tower with global pooling over planes (C, H, W); per-point moves, win/draw/loss logits and a score.

    Takes Discrete(H · W · M) actions. The value is P(win) - P(loss), with a share `score_blend` of the score; its
    sources `value_logits` and `score_lead` are what the objective `multi_head` trains.

    Args:
        num_blocks: How many residual blocks there are.
        channels: The channels of each block.
        se_reduction: What the channels are divided by in squeeze-and-excitation.
        global_pool_channels: The channels that are pooled over the whole board.
        policy_channels: The channels of the head for moves.
        value_fc_size: The units of the head for outcomes.
        score_fc_size: The units of the head for the score.
        score_blend: The share of the score in the value.
    """
    if channels < se_reduction:
        message = f"must be ≤ channels={channels}, found {se_reduction}: channels // se_reduction is the gates' width"
        raise located("se_resnet", [error_at(("se_reduction",), message, se_reduction)])
    tower = {
        "num_blocks": num_blocks,
        "channels": channels,
        "se_reduction": se_reduction,
        "global_pool_channels": global_pool_channels,
    }
    return {
        "trunk": {"type": "se_resnet_tower", "in_keys": "observation", **tower},
        "policy": {"type": "spatial_policy_head", "in_keys": "trunk", "channels": policy_channels},
        "pooled": {"type": "global_pool", "in_keys": "trunk"},
        OUTCOME: {"type": "outcome_head", "in_keys": "pooled", "hidden": value_fc_size},
        SCORE: {"type": "score_head", "in_keys": "pooled", "hidden": score_fc_size},
        "state_value": {"type": "outcome_value", "in_keys": [OUTCOME, SCORE], "score_blend": score_blend},
    }
