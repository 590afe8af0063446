"""A plugin: after `pip install ./examples/plugin`, `{type: snake}` is a component of every configuration."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policysmith import register
from policysmith.types import Features


@register("snake")
class Snake(nn.Module):
    """x + sin²(a x) / a with a learned frequency for each feature (arXiv 2006.08195, eq. 3).

    Args:
        frequency: Where the learned frequencies start.
    """

    def __init__(self, features: Features, frequency: float = 1.0) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.full((features,), frequency))

    def forward(self, x: Tensor) -> Tensor:
        """(B, …, F) → the same shape."""
        return x + (self.frequency * x).sin().square() / self.frequency
