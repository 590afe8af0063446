"""Turning raw observations into float features: images, categories, other numbers.

The policy places these between an observation's leaf and whatever reads it; they hold no parameters.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import Categories, Count, EventShape, ImageLayout, Positive

__all__ = ["CodeEncoder", "ImageEncoder", "OneHot", "ToFloat"]


@register("encode_image")
class ImageEncoder(nn.Module):
    """Pixels as floats, channels first: (*, H, W, C), (*, C, H, W) or (*, H, W) of any type → (*, C, H, W) / scale.

    The frames of a stack become channels: (*, T, H, W, C) → (*, T·C, H, W).

    Args:
        layout: The order of the axes: time, height, width, channels.
        scale: What bytes are divided by.
    """

    def __init__(self, layout: ImageLayout = "hwc", scale: Positive = 255.0) -> None:
        super().__init__()
        self.layout, self.scale = layout, scale

    def forward(self, x: Tensor) -> Tensor:
        """x (*, H, W, C) → (*, C, H, W) float."""
        if self.layout in ("hwc", "thwc"):
            x = x.movedim(-1, -3)
        elif self.layout == "hw":
            x = x.unsqueeze(-3)
        if self.layout in ("thwc", "tchw"):
            x = x.flatten(-4, -3)
        return x * (1.0 / self.scale)


@register("encode_codes")
class CodeEncoder(nn.Module):
    """Cells of a grid that hold codes, as one-hot planes: (*, H, W, C) whole numbers → (*, ΣN_c, H, W).

    A code outside its channel's range gives zeros. The frames of a stack become planes: (*, T, H, W, C) → (*, T·ΣN, H,
    W).

    Args:
        sizes: How many codes each channel has.
        layout: The order of the axes: time, height, width, channels.
    """

    values: Tensor
    channels: Tensor

    def __init__(self, sizes: list[Count], layout: Literal["hwc", "thwc"] = "hwc") -> None:
        super().__init__()
        self.layout = layout
        values = [code for size in sizes for code in range(size)]
        channels = [channel for channel, size in enumerate(sizes) for _ in range(size)]
        self.register_buffer("values", torch.tensor(values), persistent=False)
        self.register_buffer("channels", torch.tensor(channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, H, W, C) → (*, ΣN, H, W) float32."""
        planes = x.index_select(-1, self.channels).eq(self.values).float().movedim(-1, -3)
        return planes.flatten(-4, -3) if self.layout == "thwc" else planes


@register("one_hot", indices=True)
class OneHot(nn.Module):
    """Category indices as indicator vectors: (*,) → (*, N) for one variable, (*, *event) → (*, ΣN_k) for several.

    An index outside its range gives zeros.
    """

    values: Tensor
    variables: Tensor

    def __init__(
        self,
        categories: Categories,
        event_shape: EventShape = (),
    ) -> None:
        super().__init__()
        self.event_ndim = len(event_shape)
        values = [v for n in categories for v in range(n)]
        variables = [k for k, n in enumerate(categories) for _ in range(n)]
        self.register_buffer("values", torch.tensor(values), persistent=False)
        self.register_buffer("variables", torch.tensor(variables), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, *event) integers → (*, ΣN) float32."""
        if self.event_ndim > 1:
            x = x.flatten(-self.event_ndim)
        x = x.index_select(-1, self.variables) if self.event_ndim else x.unsqueeze(-1)
        return x.eq(self.values).float()


@register("to_float")
class ToFloat(nn.Module):
    """Numbers of any type as float32, divided by `scale`: (*, *event) → (*, *event).

    Args:
        scale: What numbers are divided by.
    """

    def __init__(self, scale: Positive = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """x (*, *event) → x / scale, float32."""
        x = x.float()
        return x if self.scale == 1.0 else x * (1.0 / self.scale)
