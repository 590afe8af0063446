"""Where a step stands in its window, as a learned vector and as a smooth function of time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.ops.init import with_role
from policysmith.parts.position import Position
from policysmith.registry import register
from policysmith.types import Dim, Width

__all__ = ["TimeEmbedding"]


@register("time", slot="position")
class TimeEmbedding(Position):
    """A learned vector of the step, plus a small network of the time, (step + 1) / `length`: added to the tokens.

    Time lies in (0, 1], so its code has one scale at every step. A sequence longer than `length` is refused; in the
    memory of an episode the steps from `length` on share one code.

    Args:
        length: How many steps the time is measured in.
    """

    def __init__(self, dim: Dim, length: Width = 256) -> None:
        super().__init__()
        self.length: int = length
        self.table = with_role(nn.Embedding(length, dim), "position")
        self.hidden = with_role(nn.Linear(1, dim // 2), "projection")
        self.out = with_role(nn.Linear(dim // 2, dim), "projection")

    def embed(self, x_BTD: Tensor, positions: Tensor) -> Tensor:
        """(B, T, D) and steps (B|1, T) → (B, T, D)."""
        steps = positions.clamp_max(self.length - 1)
        time = (steps + 1).unsqueeze(-1).to(x_BTD.dtype) / self.length
        return x_BTD + self.table(steps) + self.out(F.gelu(self.hidden(time)))
