"""Learned vectors for categories: Discrete and MultiDiscrete observations without one-hot detours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import Categories, EventShape, Width

__all__ = ["Embedding"]


@register("embedding", indices=True)
class Embedding(nn.Module):
    """One table for all variables: (*,) → (*, dim) for one variable, (*, *event) → (*, K·dim) for K of them.

    `categories` holds each variable's number of values; indices start at 0.

    Args:
        dim: The width of each category's vector.
    """

    offsets: Tensor

    def __init__(
        self,
        categories: Categories,
        event_shape: EventShape = (),
        dim: Width = 64,
    ) -> None:
        super().__init__()
        self.event_ndim = len(event_shape)
        self.table = nn.Embedding(sum(categories), dim)
        self.register_buffer("offsets", _offsets(categories), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, *event) int64 → (*, K·dim)."""
        if not self.event_ndim:
            return self.table(x)
        if self.event_ndim > 1:
            x = x.flatten(-self.event_ndim)
        return self.table(x + self.offsets).flatten(-2)


def _offsets(categories: Sequence[int]) -> Tensor:
    return torch.tensor([sum(categories[:i]) for i in range(len(categories))])
