"""The actor-critic tower for boards: a residual trunk with a policy head and a value head, as recipes."""

from __future__ import annotations

from typing import Any

from policysmith.registry import register
from policysmith.types import Dropout, NonNegativeInt, Share, Width

__all__ = ["SMALL", "dummy", "resnet"]

SMALL: dict[str, Any] = {"tower_depth": 1, "tower_width": 16, "se_ratio": None, "dropout_rate": 0.0}


@register("resnet", slot="model", batch_coupled=True, board=True)
def resnet(
    tower_depth: NonNegativeInt = 9,
    tower_width: Width = 256,
    se_ratio: Share | None = None,
    dropout_rate: Dropout = 0.0,
) -> dict[str, object]:
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
) -> dict[str, object]:
    """The smallest tower, for tests: one block of 16 channels. It takes a tower's options and ignores them.

    Args:
        tower_depth: How many residual blocks there are.
        tower_width: The channels of each block.
        se_ratio: The share of channels that squeeze-and-excitation keeps; null or 0 has none.
        dropout_rate: The share of channels that training sets to 0.
    """
    return resnet(**SMALL)


for _name in ("dummy", "testmodel", "resumemodel"):
    register(_name, slot="model", batch_coupled=True, board=True, offered=False)(dummy)
