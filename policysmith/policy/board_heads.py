"""Heads that read a board: each point through two planes, then all points together.

In: (B, C, H, W). Out: action parameters (B, P), or state value (B,).
"""

from __future__ import annotations

from torch import nn

from policysmith.policy.heads import ActionHead, ValueHead
from policysmith.registry import register
from policysmith.types import ActionLayout, ImageShape

__all__ = ["BoardPolicyHead", "BoardValueHead"]

PLANES = 2


def _planes(image_shape: tuple[int, ...]) -> list[nn.Module]:
    """1×1 convolution to two planes → norm → ReLU → (B, 2·H·W)."""
    return [nn.Conv2d(image_shape[0], PLANES, 1), nn.BatchNorm2d(PLANES), nn.ReLU(), nn.Flatten(-3)]


def _points(image_shape: tuple[int, ...]) -> int:
    return PLANES * image_shape[1] * image_shape[2]


@register("board_policy_head", role="policy", batch_coupled=True)
class BoardPolicyHead(nn.Sequential):
    """Board features (B, C, H, W) → distribution parameters (B, P) for the action space."""

    def __init__(
        self,
        image_shape: ImageShape,
        layout: ActionLayout,
    ) -> None:
        super().__init__(*_planes(image_shape), ActionHead(_points(image_shape), layout))


@register("board_value_head", role="value", batch_coupled=True)
class BoardValueHead(nn.Sequential):
    """Board features (B, C, H, W) → state value (B,), in units of (discounted) return."""

    def __init__(self, image_shape: ImageShape) -> None:
        super().__init__(*_planes(image_shape), ValueHead(_points(image_shape)))
