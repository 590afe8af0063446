"""A policy head for moves that each belong to a point of the board. M moves a point.

In: (B, C, H, W). Out: logits (B, H·W·M).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.ops.init import with_role
from policysmith.registry import register
from policysmith.types import Count, ImageShape, NumActions

__all__ = ["SpatialPolicyHead"]


@register("spatial_policy_head", role="policy", batch_coupled=True)
class SpatialPolicyHead(nn.Module):
    """Board features (B, C, H, W) → logits (B, H·W·M) of a Discrete space: the same M moves at every point.

    Two 1×1 convolutions with `channels` planes between them. Move m at (row, column) is action
    (row · W + column) · M + m. Raises ValueError for other spaces, and for a number of actions that is no multiple
    of the points.

    Args:
        channels: The channels between the tower and the moves.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        channels: Count = 32,
        num_actions: NumActions = 0,
    ) -> None:
        super().__init__()
        width, rows, columns = image_shape
        points = rows * columns
        if not num_actions:
            raise ValueError(
                f"it chooses one of {points} · M moves, which needs a Discrete action space; "
                "board_policy_head is for any space"
            )
        if num_actions % points:
            raise ValueError(
                f"{num_actions} actions are no multiple of the {rows} · {columns} = {points} points; "
                "board_policy_head takes any number"
            )
        self.conv1, self.bn1 = nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2 = with_role(nn.Conv2d(channels, num_actions // points, 1), "policy_out")

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) → (B, H·W·M)."""
        logits_BMHW = self.conv2(F.relu(self.bn1(self.conv1(x))))
        return logits_BMHW.permute(0, 2, 3, 1).flatten(1)
