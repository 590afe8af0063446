"""Sampling, log-probability and entropy of the distributions that policies use, without `torch.distributions`.

`*` any leading batch dimensions, N choices, D dimensions. Everything is plain tensor code that traces with the model.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from policysmith.ops.whole import whole

__all__ = [
    "categorical_entropy",
    "categorical_log_prob",
    "categorical_sample",
    "mask_logits",
    "normal_entropy",
    "normal_log_prob",
    "squashed_entropy",
    "squashed_log_prob",
]

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
TINY = 1e-30  # no clock shows zero: 0/0 would be the greatest of all
MANY = 64  # choices from which inversion is faster than a race
SATURATION = 1e-6  # keeps atanh finite: |tanh| ≤ 1 - SATURATION in float32
# Gauss–Hermite nodes and weights for E[f(z)], z standard normal: Σ w f(z), exact for polynomials up to degree 15.
_NODES, _WEIGHTS = (
    [
        -4.1445471861,
        -2.8024858612,
        -1.6365190424,
        -0.5390798114,
        0.5390798114,
        1.6365190424,
        2.8024858612,
        4.1445471861,
    ],
    [0.0001126145, 0.0096352201, 0.1172399077, 0.3730122577, 0.3730122577, 0.1172399077, 0.0096352201, 0.0001126145],
)


@whole
def mask_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """Illegal logits (*, N) become the dtype's lowest finite value; a tracer keeps this as one call."""
    return torch.where(mask, logits, torch.finfo(logits.dtype).min)


def categorical_sample(log_probs: Tensor, choices: int = 0) -> Tensor:
    """log_probs (*, N) → indices (*) drawn by their probabilities; `choices` is N where it is known before tracing.

    Few choices race: the first of N clocks with rates p to ring (Efraimidis & Spirakis 2006; the same law as adding
    Gumbel noise to the logits). Many are drawn by inverting the distribution function: one draw a row, not N.
    """
    if choices < MANY:
        clocks = torch.empty_like(log_probs, dtype=torch.float32).exponential_().add_(TINY)
        return (log_probs.exp() / clocks).argmax(-1)
    # softmax, not exp: on a CPU torch's exp takes twelve times as long for masked choices, where it underflows.
    below = log_probs.softmax(-1, dtype=torch.float32).cumsum(-1)
    point = torch.rand_like(below[..., :1]) * below[..., -1:]  # rounding never takes it up to the total
    # A choice of probability zero is never the first beyond the point; the clamp is for rows of NaN.
    return torch.searchsorted(below, point, right=True).squeeze(-1).clamp_max(choices - 1)


def categorical_log_prob(log_probs: Tensor, index: Tensor) -> Tensor:
    """log_probs (*, N), index (*) → (*)."""
    return log_probs.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def categorical_entropy(log_probs: Tensor, mask: Tensor | None = None) -> Tensor:
    """log_probs (*, N) → (*); with a mask only legal choices are summed, so half precision makes no NaN."""
    if mask is None:
        return -(log_probs.exp() * log_probs).sum(-1)
    return -(log_probs.softmax(-1) * torch.where(mask, log_probs, 0.0)).sum(-1)


def normal_log_prob(x: Tensor, loc: Tensor, log_std: Tensor) -> Tensor:
    """Diagonal Gaussian: x, loc, log_std (*, D) → (*)."""
    z = (x - loc) * (-log_std).exp()
    return (-0.5 * z.square() - log_std - LOG_SQRT_2PI).sum(-1)


def normal_entropy(log_std: Tensor) -> Tensor:
    """Diagonal Gaussian: log_std (*, D) → (*)."""
    return (log_std + (0.5 + LOG_SQRT_2PI)).sum(-1)


def _log_tanh_slope(u: Tensor) -> Tensor:
    """log(1 - tanh²(u)) without cancellation: 2 (log 2 - u - softplus(-2u))."""
    return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))


def squashed_log_prob(y: Tensor, loc: Tensor, log_std: Tensor) -> Tensor:
    """Density at y = tanh(u) in (-1, 1), u Gaussian (SAC, arXiv 1801.01290, app. C): (*, D) → (*)."""
    u = torch.atanh(y)
    return normal_log_prob(u, loc, log_std) - _log_tanh_slope(u).sum(-1)


def squashed_entropy(loc: Tensor, log_std: Tensor) -> Tensor:
    """Entropy of tanh(u), (*, D) → (*): the Gaussian's plus E[log(1 - tanh²(u))] by Gauss–Hermite quadrature."""
    std = log_std.exp()
    slopes = [weight * _log_tanh_slope(loc + node * std) for node, weight in zip(_NODES, _WEIGHTS, strict=True)]
    return normal_entropy(log_std) + torch.stack(slopes).sum(0).sum(-1)
