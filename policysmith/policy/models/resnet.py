"""The actor-critic tower for boards: a residual trunk with a policy head and a value head.

As recipes for configurations, and as the class that code of the original tower constructs.
"""

from __future__ import annotations

from typing import Any

from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.board import build_on_board
from policysmith.registry import default_registry, register
from policysmith.types import Dropout, NonNegativeInt, Share, Width

__all__ = ["SMALL", "ActorCriticResTower", "dummy", "resnet"]

SMALL: dict[str, Any] = {"tower_depth": 1, "tower_width": 16, "se_ratio": None, "dropout_rate": 0.0}


@register("resnet", slot="model", batch_coupled=True, board=True)
def resnet(
    tower_depth: NonNegativeInt = 9,
    tower_width: Width = 256,
    se_ratio: Share | None = None,
    dropout_rate: Dropout = 0.0,
) -> dict[str, Any]:
    """Residual tower over planes (C, H, W), with heads that read the whole board.

    Args:
        tower_depth: How many residual blocks there are.
        tower_width: The channels of each block.
        se_ratio: The share of channels that squeeze-and-excitation keeps; null or 0 has none.
        dropout_rate: The share of channels that training sets to 0.
    """
    tower = {"depth": tower_depth, "width": tower_width, "se_ratio": se_ratio, "dropout": dropout_rate}
    return {
        "trunk": {"type": "resnet_tower", "in_keys": "observation", **tower},
        "policy": {"type": "board_policy_head", "in_keys": "trunk"},
        "state_value": {"type": "board_value_head", "in_keys": "trunk"},
    }


def dummy(
    tower_depth: NonNegativeInt = 1,
    tower_width: Width = 16,
    se_ratio: Share | None = None,
    dropout_rate: Dropout = 0.0,
) -> dict[str, Any]:
    """The smallest tower, for tests: one block of 16 channels. It takes a tower's options and ignores them.

    Args:
        tower_depth: How many residual blocks there are.
        tower_width: The channels of each block.
        se_ratio: The share of channels that squeeze-and-excitation keeps; null or 0 has none.
        dropout_rate: The share of channels that training sets to 0.
    """
    return resnet(**SMALL)


for _name in ("dummy", "testmodel", "resumemodel"):
    register(_name, slot="model", batch_coupled=True, board=True)(dummy)


class ActorCriticResTower(ActorCritic):
    """The tower as a class: an `ActorCritic` for `input_channels` planes over a board and `num_actions` moves.

    Raises `ConfigError` (a `ValueError`) for a size or rate out of range.
    """

    def __init__(
        self,
        input_channels: int,
        num_actions: int,
        tower_depth: int = 9,
        tower_width: int = 256,
        se_ratio: float | None = None,
        dropout_rate: float = 0.0,
        board_size: tuple[int, int] = (9, 9),
    ) -> None:
        tower = {
            "tower_depth": tower_depth,
            "tower_width": tower_width,
            "se_ratio": se_ratio,
            "dropout_rate": dropout_rate,
        }
        built = build_on_board(
            {"type": "resnet", **tower}, (input_channels, *board_size), num_actions, default_registry
        )
        super().__init__(built.plan, built.components, built.observations, built.actions, built.config)
