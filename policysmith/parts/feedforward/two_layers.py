"""What every feedforward but the mixture is: up, something between, down.

In and out: (*, D).
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from policysmith.ops.init import with_role
from policysmith.registry import PartSpec, Slot

__all__ = ["FeedForwardPart", "TwoLayers"]

FeedForwardPart = Annotated[PartSpec | str, Slot("feedforward")]


class TwoLayers(nn.Module):
    """down(dropout(between(up(x)))), row by row; a subclass says what lies between.

    `up` has `ups` times as many features as `down` takes.
    """

    up: nn.Module
    down: nn.Module
    activation: nn.Module

    def __init__(self, dim: int, hidden: int, ups: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.up = with_role(nn.Linear(dim, ups * hidden, bias), "projection")
        self.down = with_role(nn.Linear(hidden, dim, bias), "projection")
        self.dropout = nn.Dropout(dropout) if dropout else None

    def between(self, h: Tensor) -> Tensor:
        """h (*, ups · hidden) → (*, hidden)."""
        raise NotImplementedError

    def inner(self, h: Tensor) -> Tensor:
        """All that happens between the two linear layers."""
        h = self.between(h)
        return h if self.dropout is None else self.dropout(h)

    def forward(self, x: Tensor, aux: dict[str, Tensor] | None = None, task: Tensor | None = None) -> Tensor:
        """x (*, D) → (*, D); `aux` and `task` are for mixtures, and nothing here."""
        return self.down(self.inner(self.up(x)))
