"""A bilinear map of two streams."""

from __future__ import annotations

from torch import nn

from policysmith.registry import register
from policysmith.types import EventShapes, Width

__all__ = ["Bilinear"]


@register("bilinear")
class Bilinear(nn.Bilinear):
    """x (*, F), y (*, G) → (*, out_features): xᵀ A_o y + b_o for each output o.

    Args:
        out_features: The width of the output.
        bias: Whether a bias is added.
    """

    def __init__(
        self,
        event_shapes: EventShapes,
        out_features: Width = 64,
        bias: bool = True,
    ) -> None:
        if len(event_shapes) != 2 or any(len(shape) != 1 for shape in event_shapes):
            found = ", ".join(map(str, event_shapes))
            raise ValueError(f"bilinear takes two vectors, found shapes {found}")
        super().__init__(event_shapes[0][0], event_shapes[1][0], out_features, bias)
