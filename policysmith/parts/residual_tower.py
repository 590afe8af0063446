"""The trunk of board-game networks: a stem and a tower of residual blocks at the board's own resolution.

In: (B, C, H, W), planes of features over any board. Out: (B, W', H, W) with W' the tower's width.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.config.signatures import Repeated
from policysmith.parts.squeeze_excitation import SqueezeExcitation
from policysmith.registry import register
from policysmith.types import Dropout, ImageShape, NonNegativeInt, Share, Width

__all__ = ["ResidualTower"]


class ResidualBlock(nn.Module):
    """relu(x + f(x)), f two convolutions (He et al., arXiv 1512.03385), with optional gates on f's channels."""

    def __init__(self, width: int, se_ratio: float | None, dropout: float) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        self.se = SqueezeExcitation(width, se_ratio) if se_ratio else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x (B, W', H, W) → the same shape."""
        y = self.dropout(F.relu(self.bn1(self.conv1(x))))
        return F.relu(x + self.se(self.bn2(self.conv2(y))))


@register("resnet_tower", batch_coupled=True)
class ResidualTower(nn.Module):
    """Convolution stem and `depth` residual blocks of `width` channels, as in AlphaGo Zero (Nature 550, 2017).

    (B, C, H, W) → (B, width, H, W). `se_ratio` adds squeeze-and-excitation (null or 0: none), `dropout` drops whole
    channels between the convolutions of a block. Module names are those of the actor-critic tower it stems from.

    Args:
        depth: How many residual blocks there are.
        width: The channels of each block.
        se_ratio: The share of channels that squeeze-and-excitation keeps; null or 0 has none.
        dropout: The share of channels that training sets to 0.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        depth: Annotated[NonNegativeInt, Repeated()] = 9,
        width: Width = 256,
        se_ratio: Share | None = None,
        dropout: Dropout = 0.0,
    ) -> None:
        super().__init__()
        self.stem, self.bn_stem = nn.Conv2d(image_shape[0], width, 3, padding=1), nn.BatchNorm2d(width)
        self.res_blocks = nn.Sequential(*(ResidualBlock(width, se_ratio, dropout) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) → (B, width, H, W)."""
        return self.res_blocks(F.relu(self.bn_stem(self.stem(x))))
