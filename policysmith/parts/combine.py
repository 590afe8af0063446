"""Several inputs become one: flattened and joined, joined along an axis, added, subtracted, averaged, modulated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policysmith.ops.join_features import join_features
from policysmith.parts.reshape import checked_axis
from policysmith.registry import register
from policysmith.types import EventShapes

__all__ = ["Concat", "Difference", "FiLM", "Join", "Mean", "Sum"]


@register("concat")
class Concat(nn.Module):
    """All inputs side by side: events are flattened and joined, (*, *event_i) → (*, Σ features_i)."""

    def __init__(self, event_shapes: EventShapes) -> None:
        super().__init__()
        self.event_ndims = tuple(len(shape) for shape in event_shapes)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs (*, *event_i) → (*, F)."""
        return join_features(inputs, self.event_ndims)


@register("join")
class Join(nn.Module):
    """Inputs side by side along one axis, all others alike: maps join their channels with `axis: 0`.

    `concat` is for what may be flattened.

    Args:
        axis: The axis along which the inputs are put together.
    """

    def __init__(self, event_shapes: EventShapes, axis: int = -1) -> None:
        super().__init__()
        self.axis = checked_axis(axis, event_shapes[0])
        rests = {_without(shape, self.axis) for shape in event_shapes}
        if len(rests) > 1 or len({len(shape) for shape in event_shapes}) > 1:
            raise ValueError(f"join needs shapes that differ in axis {axis} only, found {_listed(event_shapes)}")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs (*, …, N_i, …) → (*, …, ΣN_i, …)."""
        return torch.cat(inputs, self.axis)


@register("sum")
class Sum(nn.Module):
    """The sum of inputs of one shape."""

    def __init__(self, event_shapes: EventShapes) -> None:
        super().__init__()
        _check_alike("sum", event_shapes)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs (*, *event), all alike → their sum."""
        total = inputs[0]
        for x in inputs[1:]:
            total = total + x
        return total


@register("difference")
class Difference(nn.Module):
    """The first of two inputs of one shape minus the second."""

    def __init__(self, event_shapes: EventShapes) -> None:
        super().__init__()
        if len(event_shapes) != 2:
            raise ValueError(f"difference takes two inputs, found {len(event_shapes)}")
        _check_alike("difference", event_shapes)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y (*, *event) → x - y."""
        return x - y


@register("mean")
class Mean(nn.Module):
    """The mean of inputs of one shape."""

    def __init__(self, event_shapes: EventShapes) -> None:
        super().__init__()
        _check_alike("mean", event_shapes)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs (*, *event), all alike → their mean."""
        total = inputs[0]
        for x in inputs[1:]:
            total = total + x
        return total / len(inputs)


@register("film")
class FiLM(nn.Module):
    """Feature-wise linear modulation (arXiv 1709.07871): x · (1 + γ(c)) + β(c), γ and β affine in the condition c.

    x (B, F) or (B, C, H, W), condition (B, K); the identity at initialisation is 1 + γ, not γ.
    """

    def __init__(self, event_shapes: EventShapes) -> None:
        super().__init__()
        if len(event_shapes) != 2 or not event_shapes[0] or len(event_shapes[1]) != 1:
            raise ValueError(f"film takes x and a condition vector, found shapes {_listed(event_shapes)}")
        x_shape, (width,) = event_shapes
        self.spatial = len(x_shape) - 1
        self.scale = nn.Linear(width, x_shape[0])
        self.shift = nn.Linear(width, x_shape[0])

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (*, C, …), condition (*, K) → (*, C, …)."""
        scale, shift = self.scale(condition), self.shift(condition)
        for _ in range(self.spatial):
            scale, shift = scale.unsqueeze(-1), shift.unsqueeze(-1)
        return torch.addcmul(x + shift, x, scale)


def _listed(shapes: tuple[tuple[int, ...], ...]) -> str:
    return ", ".join(map(str, shapes))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    index = len(shape) + axis
    return shape[: max(index, 0)] + shape[index + 1 :] if index >= 0 else shape


def _check_alike(name: str, event_shapes: tuple[tuple[int, ...], ...]) -> None:
    if len(set(event_shapes)) > 1:
        raise ValueError(f"{name} needs inputs of one shape, found {_listed(event_shapes)}")
