"""Sampling, log-probability and entropy of the distributions that policies use, without `torch.distributions`.

`*` any leading batch dimensions, N choices, D dimensions. Everything is plain tensor code that traces with the model.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from policysmith.ops.leaf_function import leaf_function

__all__ = [
    "bounded",
    "categorical_entropy",
    "categorical_log_prob",
    "categorical_sample",
    "inverse_tanh",
    "mask_logits",
    "normal_entropy",
    "normal_log_prob",
    "open_tanh",
    "squashed_entropy",
    "squashed_log_prob",
]

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
TINY = 1e-30  # no clock shows zero: 0/0 would be the greatest of all
MANY = 64  # choices from which inversion is faster than a race
# log cosh u + log 2 = E|u + L| for a logistic L of density sech²(l)/2. That density is a mixture of centred normals:
# three with these weights and deviations (fitted for the least greatest error) give log cosh to within 4e-5 for all u.
_WEIGHTS = (0.3233003361, 0.5660622580, 0.1106374059)
_DEVIATIONS = (0.5763520238, 0.9206023999, 1.4581455905)
FAR = 9.0  # deviations from which erf is ±1 in double precision; without the clamp the square overflows


@leaf_function
def mask_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """Illegal logits (*, N) become the dtype's lowest finite value; a tracer keeps this as one call."""
    return torch.where(mask, logits, torch.finfo(logits.dtype).min)


class _Bounded(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, low: float, high: float) -> Tensor:
        return x.clamp(low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        x, ctx.low, ctx.high = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (x,), (gradient,) = ctx.saved_tensors, gradients
        stuck = ((x > ctx.high) & (gradient < 0)) | ((x < ctx.low) & (gradient > 0))
        return torch.where(stuck, 0.0, gradient), None, None


@leaf_function
def bounded(x: Tensor, low: float, high: float) -> Tensor:
    """`x.clamp(low, high)` whose gradient beyond a bound is zero only where a descent step would lead further out.

    clamp's own is zero either way, so a free parameter that an optimiser's momentum took past the bound stayed there
    for ever. A tracer keeps this as one call.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_exporting():
        return x.clamp(low, high)
    return _Bounded.apply(x, low, high)


@leaf_function
def inverse_tanh(y: Tensor) -> Tensor:
    """The u with tanh(u) = y; ±1 and beyond count as the last number below 1 of the dtype (float32: |u| ≤ 8.66).

    A tracer keeps this as one call.
    """
    return _inside(y).atanh()


@leaf_function
def open_tanh(u: Tensor) -> Tensor:
    """tanh(u), never quite ±1: who takes atanh of it (other libraries' densities) gets a number.

    A tracer keeps this as one call.
    """
    return _inside(u.tanh())


def _inside(y: Tensor) -> Tensor:
    limit = 1.0 - torch.finfo(y.dtype).eps / 2
    return y.clamp(-limit, limit)


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
    """log(1 - tanh²(u)) = 2 (log 2 - |u| - log(1 + exp(-2|u|))); with -u for |u| the terms would cancel below zero."""
    size = u.abs()
    return 2.0 * (math.log(2.0) - size - F.softplus(-2.0 * size))


def squashed_log_prob(u: Tensor, loc: Tensor, log_std: Tensor) -> Tensor:
    """Density at tanh(u), u Gaussian (SAC, arXiv 1801.01290, app. C), told by u itself: (*, D) → (*)."""
    return normal_log_prob(u, loc, log_std) - _log_tanh_slope(u).sum(-1)


def squashed_entropy(loc: Tensor, log_std: Tensor) -> Tensor:
    """Entropy of tanh(u), (*, D) → (*), within 1e-4 a dimension: the Gaussian's less 2 E[log cosh u].

    Convolving the mixture for log cosh with the Gaussian adds the variances, so its mean is closed at every deviation;
    quadrature in u is not: its nodes lie further apart than the slope of tanh is wide.
    """
    variance = (2.0 * log_std).exp()
    terms = [w * _mean_size(loc, (variance + s * s).sqrt()) for w, s in zip(_WEIGHTS, _DEVIATIONS, strict=True)]
    means = terms[0] + terms[1] + terms[2]
    return normal_entropy(log_std) + (2.0 * (math.log(2.0) - means)).sum(-1)


def _mean_size(loc: Tensor, std: Tensor) -> Tensor:
    """E|x| of a Gaussian: the mean of a folded normal."""
    far = (loc / std).clamp(-FAR, FAR)
    return std * math.sqrt(2.0 / math.pi) * (-0.5 * far.square()).exp() + loc * torch.erf(far * math.sqrt(0.5))
