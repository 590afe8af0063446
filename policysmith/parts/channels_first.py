"""A grid of features as an environment gives it, as an image.

In: (*, H, W, C) of any number type. Out: (*, C, H, W) float32.
"""

from __future__ import annotations

from torch import Tensor, nn

from policysmith.registry import register

__all__ = ["ChannelsFirst"]


# `indices`: it reads the observation as it is. The encoder of images, which bytes get otherwise, would divide by 255.
@register("channels_first", indices=True)
class ChannelsFirst(nn.Module):
    """Channels last to channels first, numbers unchanged: (*, H, W, C) → (*, C, H, W) float32."""

    def forward(self, x: Tensor) -> Tensor:
        """x (*, H, W, C) → (*, C, H, W) float32."""
        return x.movedim(-1, -3).float()
