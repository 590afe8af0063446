"""Waves of many lengths, added to the tokens: positions without parameters and without a greatest length."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from policysmith.parts.position.slot import Position
from policysmith.registry import register
from policysmith.types import Dim

__all__ = ["SinusoidalPosition"]


@register("sinusoidal", slot="position")
class SinusoidalPosition(Position):
    """Sines and cosines of the step at rates base^(-2i/D), interleaved (arXiv 1706.03762, section 3.5).

    Args:
        base: The ratio of the longest to the shortest wave.
    """

    def __init__(self, dim: Dim, base: Annotated[float, Gt(1)] = 10_000.0) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim={dim} is odd: sinusoidal positions are pairs of sine and cosine")
        self.base = base

    def embed(self, x_BTD: Tensor, positions: Tensor) -> Tensor:
        """(B, T, D) and steps (B|1, T) → (B, T, D)."""
        pairs = x_BTD.shape[-1] // 2
        exact = torch.promote_types(x_BTD.dtype, torch.float32)
        rates = self.base ** (torch.arange(pairs, device=x_BTD.device, dtype=exact) / -pairs)
        angles = positions.unsqueeze(-1) * rates
        return x_BTD + torch.stack((angles.sin(), angles.cos()), -1).flatten(-2).to(x_BTD.dtype)
