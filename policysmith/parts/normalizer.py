"""Observation normalisation by running statistics.

The trainer calls `update` between rollouts; a forward only reads, so acting and learning see the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import EventShape, Positive

__all__ = ["RunningNormalizer"]

LARGEST = torch.finfo(torch.float32).max


@register("normalizer")
class RunningNormalizer(nn.Module):
    """(x - mean) / √(variance + eps), clipped to ±clip; statistics are buffers, stored with the policy.

    (*, *event) → (*, *event). Before the first update it is the identity but for the clip.

    Args:
        clip: How many standard deviations are kept on either side.
        eps: What is added to the variance, so that a constant input is not divided by 0.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(
        self,
        event_shape: EventShape,
        clip: Positive = 10.0,
        eps: Positive = 1e-8,
    ) -> None:
        super().__init__()
        self.clip, self.eps, self.event_ndim = clip, eps, len(event_shape)
        self.register_buffer("mean", torch.zeros(event_shape))
        self.register_buffer("variance", torch.ones(event_shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """x (*, *event) → normalised x."""
        return ((x - self.mean) * (self.variance + self.eps).rsqrt()).clamp(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take rows x (*, *event) into the statistics (parallel variance: Chan, Golub & LeVeque 1979, eq. 2.1).

        A row with a number that is not finite is left out whole.
        """
        rows = x.reshape(-1, *x.shape[x.dim() - self.event_ndim :]).double()
        if rows.shape[0] == 0:
            return
        mean, variance = rows.mean(0), rows.var(0, correction=0)
        # Means are finite where all rows are: only otherwise is each number looked at.
        if not torch.isfinite(mean.sum() + variance.sum()):
            finite = rows.isfinite().flatten(1).all(1) if self.event_ndim else rows.isfinite()
            if finite.any():
                self.update(rows[finite])
            return
        fresh = rows.shape[0]
        total = self.count + fresh
        delta = mean - self.mean.double()
        moments = self.variance.double() * self.count + variance * fresh + delta.square() * self.count * fresh / total
        self.mean.copy_(self.mean.double() + delta * fresh / total)
        # Numbers beyond 1e19 have a variance that float32 can't hold: inf would make every later variance inf or NaN.
        self.variance.copy_((moments / total).clamp(max=LARGEST))
        self.count.copy_(total)
