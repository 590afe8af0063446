"""Reshaping as a component."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from policysmith.registry import Infer, register

__all__ = ["Flatten"]


@register("flatten")
class Flatten(nn.Module):
    """Every event as one vector: (*, *event) → (*, Πevent)."""

    def __init__(self, event_shape: Annotated[tuple[int, ...], Infer("event_shape")]) -> None:
        super().__init__()
        self.event_ndim = len(event_shape)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, *event) → (*, F)."""
        return x.flatten(-self.event_ndim) if self.event_ndim else x.unsqueeze(-1)
