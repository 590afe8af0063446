"""Residual sums whose branch starts small, so that deep stacks begin near the identity."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import Dim, Positive

__all__ = ["LayerScale", "ReZero"]


@register("layerscale", slot="residual")
class LayerScale(nn.Module):
    """x + λ ⊙ y with a learned λ for each feature (arXiv 2103.17239, eq. 5).

    `initial` is the paper's 0.1, for up to 18 blocks; it has 1e-5 up to 24 and 1e-6 beyond.

    Args:
        initial: Where the learned scale of each feature starts.
    """

    def __init__(self, dim: Dim, initial: Positive = 0.1) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y (*, D) → (*, D)."""
        return torch.addcmul(x, y, self.scale)


@register("rezero", slot="residual")
class ReZero(nn.Module):
    """x + α · y with one learned α, 0 at first: the block is the identity, and its branch learns once α has moved.

    arXiv 2003.04887, eq. 1.
    """

    def __init__(self, dim: Dim) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y (*, D) → (*, D)."""
        return torch.addcmul(x, y, self.alpha)
