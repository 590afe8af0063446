"""The same numbers in another shape, or some of them: flatten, slice, expand, fold, centre pixel.

Axes count those of one row's event: 0 is the first after the batch, -1 the last.
"""

from __future__ import annotations

from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import Count, EventShape, ImageShape, NonNegativeInt

__all__ = ["CentrePixel", "Expand", "Flatten", "Fold", "Slice", "checked_axis"]


@register("flatten")
class Flatten(nn.Module):
    """Every event as one vector: (*, *event) → (*, Πevent)."""

    def __init__(self, event_shape: EventShape) -> None:
        super().__init__()
        self.event_ndim = len(event_shape)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, *event) → (*, F)."""
        return x.flatten(-self.event_ndim) if self.event_ndim else x.unsqueeze(-1)


@register("slice")
class Slice(nn.Module):
    """Entries `start` to `stop` (exclusive) of one axis: (*, …, N, …) → (*, …, stop - start, …).

    Args:
        start: The first index that is kept.
        stop: The first index that is not; null keeps all to the end.
        axis: Which axis of a row.
    """

    def __init__(
        self,
        event_shape: EventShape,
        start: NonNegativeInt = 0,
        stop: Count | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__()
        self.axis = checked_axis(axis, event_shape)
        size = event_shape[self.axis]
        stop = size if stop is None else stop
        if not start < stop <= size:
            raise ValueError(f"a slice from {start} to {stop} of an axis of {size}")
        self.start, self.length = start, stop - start

    def forward(self, x: Tensor) -> Tensor:
        """x (*, …, N, …) → (*, …, stop - start, …)."""
        return x.narrow(self.axis, self.start, self.length)


@register("expand")
class Expand(nn.Module):
    """The same `size` times over, along a new axis put before `axis`: (*, …) → (*, …, size, …).

    Args:
        size: How often the row is repeated.
        axis: Where the new axis stands in a row.
    """

    def __init__(self, event_shape: EventShape, size: Count, axis: int = 0) -> None:
        super().__init__()
        # Against one axis more: -1 is the new last one.
        self.axis = checked_axis(axis, (*event_shape, 1))
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """x (*, …) → (*, …, size, …)."""
        # No view: what comes after may need memory of its own.
        return x.unsqueeze(self.axis).repeat_interleave(self.size, self.axis)


@register("fold")
class Fold(nn.Module):
    """One axis less: `axis` is multiplied into `into`, an earlier one, in the order of memory.

    (*, …, M, …, N, …) → (*, …, M·N, …). Next to one another they are flattened.

    Args:
        axis: The axis that goes.
        into: The axis that takes it in.
    """

    def __init__(self, event_shape: EventShape, axis: int = -1, into: int = -2) -> None:
        super().__init__()
        axis, into = checked_axis(axis, event_shape), checked_axis(into, event_shape)
        if axis <= into:
            raise ValueError(f"an axis is folded into an earlier one: found axis {axis} into {into}, from the end")
        sizes = list(event_shape)
        sizes[into] *= sizes[axis]
        del sizes[axis]
        self.event_ndim, self.sizes = len(event_shape), tuple(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, *event) → (*, *folded)."""
        return x.flatten(-self.event_ndim).unflatten(-1, self.sizes)


@register("centre_pixel")
class CentrePixel(nn.Module):
    """What stands in the middle of a map, where an agent sees itself: (*, C, H, W) → (*, C), H and W odd."""

    def __init__(self, image_shape: ImageShape) -> None:
        super().__init__()
        _, *sides = image_shape
        if not all(side % 2 for side in sides):
            raise ValueError(f"a map of {sides[0]}×{sides[1]} has no pixel in the middle: both sides must be odd")
        self.row, self.column = (side // 2 for side in sides)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, C, H, W) → (*, C)."""
        return x[..., self.row, self.column]


def checked_axis(axis: int, event_shape: tuple[int, ...]) -> int:
    """An axis of an event, counted from the end (-1 the last), so that any leading batch dimensions pass."""
    count = len(event_shape)
    if not -count <= axis < count:
        raise ValueError(f"axis {axis} of an event {event_shape}, which has {count} axes")
    return axis - count if axis >= 0 else axis
