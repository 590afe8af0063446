"""A residual stack of dense layers with norms and a Swish whose slope is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import Features, Repeats

__all__ = ["Swish", "SwishResidualMLP"]

LAYERS = 4  # in a block


class Swish(nn.Module):
    """x · σ(βx) with β learned, which starts at 1 (arXiv 1710.05941)."""

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """x (*) → (*)."""
        return x * (self.beta * x).sigmoid()


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [m for _ in range(LAYERS) for m in (nn.Linear(width, width), nn.LayerNorm(width), Swish())]
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, F) → x + block(x)."""
        return x + self.block(x)


@register("swish_residual_mlp")
class SwishResidualMLP(nn.Sequential):
    """x + (Linear → LayerNorm → Swish) four times over, `blocks` of them: (*, F) → (*, F).

    The dense residual network that scales with depth in goal-conditioned RL (arXiv 2503.14858).

    Args:
        blocks: How many residual blocks there are.
    """

    def __init__(
        self,
        features: Features,
        blocks: Repeats = 1,
    ) -> None:
        super().__init__(*(_Block(features) for _ in range(blocks)))
