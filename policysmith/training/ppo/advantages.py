"""Generalised advantage estimation (arXiv 1506.02438, eq. 16). T steps, N environments."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["generalized_advantages"]


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    done: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Advantages (T, N) from rewards, values and next_values (T, N) float, terminated and done (T, N) 0/1 floats.

    `next_values[t]` is the value of the state that step t led to, before any reset: of the final observation where
    the episode was truncated. Termination removes it, any end of an episode cuts the trace.
    """
    delta = torch.addcmul(rewards - values, next_values, 1.0 - terminated, value=gamma)
    decay = (1.0 - done).mul_(gamma * gae_lambda).unbind(0)
    advantages = list(delta.unbind(0))
    for t in range(len(advantages) - 2, -1, -1):
        advantages[t] = torch.addcmul(advantages[t], decay[t], advantages[t + 1])
    return torch.stack(advantages)
