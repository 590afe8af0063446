"""Maps and sequences side by side along an axis of theirs; `concat` is for what may be flattened."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policysmith.parts.axes import checked_axis
from policysmith.registry import register
from policysmith.types import EventShapes

__all__ = ["Join"]


@register("join")
class Join(nn.Module):
    """Inputs side by side along one axis, all others alike: maps join their channels with `axis: 0`.

    Args:
        axis: The axis along which the inputs are put together.
    """

    def __init__(self, event_shapes: EventShapes, axis: int = -1) -> None:
        super().__init__()
        self.axis = checked_axis(axis, event_shapes[0])
        rests = {_without(shape, self.axis) for shape in event_shapes}
        if len(rests) > 1 or len({len(shape) for shape in event_shapes}) > 1:
            raise ValueError(f"join needs shapes that differ in axis {axis} only, found {_shown(event_shapes)}")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs (*, …, N_i, …) → (*, …, ΣN_i, …)."""
        return torch.cat(inputs, self.axis)


def _shown(shapes: tuple[tuple[int, ...], ...]) -> str:
    return ", ".join(map(str, shapes))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    index = len(shape) + axis
    return shape[: max(index, 0)] + shape[index + 1 :] if index >= 0 else shape
