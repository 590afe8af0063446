"""Squeeze-and-excitation: every channel is scaled by what all of them say on average.

In and out: (B, C, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SqueezeExcitation"]


class SqueezeExcitation(nn.Module):
    """Channel attention (arXiv 1709.01507, §3) through max(1, ⌊channels · ratio⌋) hidden units."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        hidden = max(1, int(channels * ratio))
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) → the same, each channel times its gate in (0, 1)."""
        mean = x.mean((-2, -1), keepdim=True)
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(mean))))
