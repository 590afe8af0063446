"""PPO's objective (arXiv 1707.06347, eq. 7–9). B is the minibatch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["PPOTerms", "clip_diagnostics", "ppo_terms"]


class PPOTerms(NamedTuple):
    """Scalars: the clipped surrogate (to be minimised), the value loss, and the mean entropy."""

    policy: Tensor
    value: Tensor
    entropy: Tensor


def ppo_terms(
    log_prob: Tensor,
    entropy: Tensor,
    value: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    returns: Tensor,
    old_value: Tensor,
    clip: float,
    value_clip: float | None,
) -> PPOTerms:
    """Loss terms of one minibatch; every argument (B,).

    `value_clip` keeps the new value within that distance of the old one and takes the larger error (the PPO2 option);
    None is the plain squared error. The value loss carries the factor ½.
    """
    ratio = (log_prob - old_log_prob).exp()
    surrogate = torch.minimum(advantage * ratio, advantage * ratio.clamp(1.0 - clip, 1.0 + clip))
    error = (value - returns).square()
    if value_clip is not None:
        clipped = old_value + (value - old_value).clamp(-value_clip, value_clip)
        error = torch.maximum(error, (clipped - returns).square())
    return PPOTerms(-surrogate.mean(), 0.5 * error.mean(), entropy.mean())


@torch.no_grad()
def clip_diagnostics(log_prob: Tensor, old_log_prob: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Approximate KL divergence (the non-negative estimator k3 of Schulman's note) and the share of clipped ratios."""
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    return (ratio - 1.0 - log_ratio).mean(), ((ratio - 1.0).abs() > clip).float().mean()
