"""Global pooling: what a plane of features says as a whole, whatever the size of the board.

In: (B, C, H, W). Out: (B, 3C): the means, then the maxima, then the standard deviations of all channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import ImageShape

__all__ = ["GlobalPool", "global_pool"]

BOARD = (-2, -1)


def global_pool(x: Tensor) -> Tensor:
    """x (B, C, H, W) → (B, 3C): mean, maximum and population standard deviation of each channel.

    Gradients are finite everywhere; that of a constant plane's deviation is zero.
    """
    mean = x.mean(BOARD, keepdim=True)
    # Tensor.std gives infinite gradients where a plane is nearly constant, and takes eight times as long on a CPU.
    deviation = torch.linalg.vector_norm(x - mean, dim=BOARD) * (x.shape[-2] * x.shape[-1]) ** -0.5
    return torch.cat([mean.flatten(-3), x.amax(BOARD), deviation], -1)


@register("global_pool")
class GlobalPool(nn.Module):
    """Mean, maximum and standard deviation of every channel, after KataGo's pooling (arXiv 1902.10565, §3.3).

    (B, C, H, W) → (B, 3C).
    """

    def __init__(self, image_shape: ImageShape) -> None:
        super().__init__()
        self.channels = image_shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) → (B, 3C)."""
        return global_pool(x)

    def extra_repr(self) -> str:
        """The channels that it pools."""
        return str(self.channels)
