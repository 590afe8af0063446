"""The plain residual sum, and the one behind a learned scalar gate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import Dim, Positive

__all__ = ["Add", "Gated"]


@register("add", slot="residual")
class Add(nn.Module):
    """x + scale · y (arXiv 1512.03385).

    Args:
        scale: What the branch is multiplied by.
    """

    def __init__(self, dim: Dim, scale: Positive = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y (*, D) → (*, D)."""
        return torch.add(x, y, alpha=self.scale)


@register("gated", slot="residual")
class Gated(nn.Module):
    """x + gate · scale · y with one learned gate for the whole branch, 1 at first.

    Args:
        scale: What the branch is multiplied by beside its learned gate.
    """

    def __init__(self, dim: Dim, scale: Positive = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.gate = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y (*, D) → (*, D)."""
        return torch.addcmul(x, y, self.gate, value=self.scale)
