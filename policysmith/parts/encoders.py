"""Turning raw observations into float features: images, categories, other numbers.

The policy places these between an observation's leaf and whatever reads it; they hold no parameters.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import Categories, EventShape, Positive

__all__ = ["ImageEncoder", "OneHot", "ToFloat"]


@register("encode_image")
class ImageEncoder(nn.Module):
    """Pixels as floats, channels first: (*, H, W, C), (*, C, H, W) or (*, H, W) of any type → (*, C, H, W) / scale.

    Args:
        layout: The order of the axes: height, width, channels.
        scale: What bytes are divided by.
    """

    def __init__(self, layout: Literal["hwc", "chw", "hw"] = "hwc", scale: Positive = 255.0) -> None:
        super().__init__()
        self.layout, self.scale = layout, scale

    def forward(self, x: Tensor) -> Tensor:
        """x (*, H, W, C) → (*, C, H, W) float."""
        if self.layout == "hwc":
            x = x.movedim(-1, -3)
        elif self.layout == "hw":
            x = x.unsqueeze(-3)
        return x * (1.0 / self.scale)


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
