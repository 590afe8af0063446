"""A learned vector for every step, added to the tokens."""

from __future__ import annotations

from torch import Tensor, nn

from policysmith.ops.init import with_role
from policysmith.parts.position.slot import Position
from policysmith.registry import register
from policysmith.types import Dim, Width

__all__ = ["LearnedPosition"]


@register("learned", slot="position")
class LearnedPosition(Position):
    """A table of `length` learned vectors (Gehring et al., arXiv 1705.03122).

    A sequence longer than `length` is refused; in the memory of an episode, where steps go on, those from `length` on
    share the last vector.

    Args:
        length: How many positions have a vector of their own.
    """

    def __init__(self, dim: Dim, length: Width = 256) -> None:
        super().__init__()
        self.length: int = length
        self.table = with_role(nn.Embedding(length, dim), "position")
        nn.init.normal_(self.table.weight, std=0.02)

    def embed(self, x_BTD: Tensor, positions: Tensor) -> Tensor:
        """(B, T, D) and steps (B|1, T) → (B, T, D)."""
        return x_BTD + self.table(positions.clamp_max(self.length - 1))
