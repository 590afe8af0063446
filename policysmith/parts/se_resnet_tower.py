"""The trunk of KataGo-like board networks: residual blocks that see the whole board through pooled features.

In: (B, C, H, W), planes of features over any board. Out: (B, C', H, W) with C' the tower's channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.parts.global_pool import global_pool
from policysmith.registry import register
from policysmith.types import Count, ImageShape, Repeats

__all__ = ["SEResNetTower"]


class GlobalPoolBiasBlock(nn.Module):
    """relu(x + f(x)): between f's convolutions a bias from the pooled block input, after them gates with a shift.

    Global pooling as in KataGo (arXiv 1902.10565, §3.3); squeeze-and-excitation (arXiv 1709.01507) that scales and
    shifts as in Leela Chess Zero.
    """

    def __init__(self, channels: int, se_hidden: int, global_pool_channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.global_fc = nn.Sequential(
            nn.Linear(3 * channels, global_pool_channels), nn.ReLU(), nn.Linear(global_pool_channels, channels)
        )
        self.se_fc1, self.se_fc2 = nn.Linear(channels, se_hidden), nn.Linear(se_hidden, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C', H, W) → the same shape."""
        y = F.relu(self.bn1(self.conv1(x))) + _over_board(self.global_fc(global_pool(x)))
        y = self.bn2(self.conv2(y))
        scale, shift = self.se_fc2(F.relu(self.se_fc1(y.mean((-2, -1))))).chunk(2, -1)
        return F.relu(torch.addcmul(x + _over_board(shift), y, _over_board(scale.sigmoid())))


def _over_board(x_BC: Tensor) -> Tensor:
    return x_BC.unsqueeze(-1).unsqueeze(-1)


@register("se_resnet_tower", batch_coupled=True)
class SEResNetTower(nn.Module):
    """Convolution stem and `num_blocks` residual blocks with globally pooled biases and squeeze-and-excitation.

    (B, C, H, W) → (B, channels, H, W). The gates' hidden layer has ⌊channels / se_reduction⌋ units, that of the pooled
    bias `global_pool_channels`. Raises ValueError where the gates would have none.

    Args:
        num_blocks: How many residual blocks there are.
        channels: The channels of each block.
        se_reduction: What the channels are divided by in squeeze-and-excitation.
        global_pool_channels: The channels that are pooled over the whole board.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        num_blocks: Repeats = 40,
        channels: Count = 256,
        se_reduction: Count = 16,
        global_pool_channels: Count = 128,
    ) -> None:
        super().__init__()
        hidden = channels // se_reduction
        if hidden < 1:
            raise ValueError(
                f"channels={channels} over se_reduction={se_reduction} leaves the gates no hidden unit: "
                f"set se_reduction to at most {channels}"
            )
        self.input_conv = nn.Conv2d(image_shape[0], channels, 3, padding=1, bias=False)
        self.input_bn = nn.BatchNorm2d(channels)
        blocks = [GlobalPoolBiasBlock(channels, hidden, global_pool_channels) for _ in range(num_blocks)]
        for block in blocks:
            # A deep tower must not blow up before its statistics are first taken: the branches' variances sum to one.
            nn.init.constant_(block.bn2.weight, num_blocks**-0.5)
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) → (B, channels, H, W)."""
        return self.blocks(F.relu(self.input_bn(self.input_conv(x))))
