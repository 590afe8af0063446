"""The initializer slot: how the weights of one component start, when the role's rule is not wanted.

Each type returns a function of one weight tensor; `torch` leaves torch's own initialisation.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

from torch import nn

from policysmith.ops.init import Initializer
from policysmith.registry import register
from policysmith.types import NonNegative

__all__ = ["orthogonal"]

SQRT_2 = math.sqrt(2)
Mode = Literal["fan_in", "fan_out"]
Nonlinearity = Literal["relu", "leaky_relu", "tanh", "linear", "selu"]


@register("orthogonal", slot="initializer")
def orthogonal(gain: NonNegative = SQRT_2) -> Initializer:
    """Orthogonal rows or columns, scaled (arXiv 1312.6120).

    Args:
        gain: What the orthogonal matrix is multiplied by.
    """
    return partial(nn.init.orthogonal_, gain=gain)


@register("xavier_uniform", slot="initializer")
def xavier_uniform(gain: NonNegative = 1.0) -> Initializer:
    """Uniform with variance 2 / (fan in + fan out) (Glorot & Bengio 2010).

    Args:
        gain: What the bound is multiplied by.
    """
    return partial(nn.init.xavier_uniform_, gain=gain)


@register("xavier_normal", slot="initializer")
def xavier_normal(gain: NonNegative = 1.0) -> Initializer:
    """Normal with variance 2 / (fan in + fan out) (Glorot & Bengio 2010).

    Args:
        gain: What the deviation is multiplied by.
    """
    return partial(nn.init.xavier_normal_, gain=gain)


@register("kaiming_uniform", slot="initializer")
def kaiming_uniform(mode: Mode = "fan_in", nonlinearity: Nonlinearity = "relu") -> Initializer:
    """Uniform with variance gain² / fan (arXiv 1502.01852).

    Args:
        mode: Whether the variance is kept forwards (fan_in) or backwards (fan_out).
        nonlinearity: What follows the layer.
    """
    return partial(nn.init.kaiming_uniform_, mode=mode, nonlinearity=nonlinearity)


@register("kaiming_normal", slot="initializer")
def kaiming_normal(mode: Mode = "fan_in", nonlinearity: Nonlinearity = "relu") -> Initializer:
    """Normal with variance gain² / fan (arXiv 1502.01852).

    Args:
        mode: Whether the variance is kept forwards (fan_in) or backwards (fan_out).
        nonlinearity: What follows the layer.
    """
    return partial(nn.init.kaiming_normal_, mode=mode, nonlinearity=nonlinearity)


@register("normal", slot="initializer")
def normal(std: NonNegative = 0.02, mean: float = 0.0) -> Initializer:
    """Independent normal entries.

    Args:
        std: The standard deviation.
        mean: The mean.
    """
    return partial(nn.init.normal_, mean=mean, std=std)


@register("constant", slot="initializer")
def constant(value: float = 0.0) -> Initializer:
    """Every entry the same.

    Args:
        value: The number.
    """
    return partial(nn.init.constant_, val=value)


@register("torch", slot="initializer")
def torch_default() -> None:
    """Leave what torch's constructor drew."""
    return None
