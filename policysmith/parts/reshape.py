"""Reshaping as a component."""

from __future__ import annotations

from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import EventShape

__all__ = ["Flatten"]


@register("flatten")
class Flatten(nn.Module):
    """Every event as one vector: (*, *event) → (*, Πevent)."""

    def __init__(self, event_shape: EventShape) -> None:
        super().__init__()
        self.event_ndim = len(event_shape)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, *event) → (*, F)."""
        return x.flatten(-self.event_ndim) if self.event_ndim else x.unsqueeze(-1)
