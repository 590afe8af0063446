"""Optimisers by name, the slot `optimizer`: options, and what makes torch's optimiser of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Protocol

import torch

from policysmith.registry import PartSpec, Slot, register
from policysmith.training.optim.schedules import Schedule, schedule
from policysmith.types import Dropout, NonNegative, Positive

__all__ = ["AdamRule", "AdamWRule", "OptimizerOption", "Rule", "SgdRule"]

OptimizerOption = Annotated[PartSpec | str, Slot("optimizer")]
Rate = Schedule | None


class Rule(Protocol):
    """A registered optimiser: options, and what makes torch's optimiser of them.

    `learning_rate` is a function of progress in [0, 1], or None for the algorithm's own; whoever steps sets it.
    """

    learning_rate: Callable[[float], float] | None
    weight_decay: float

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """torch's optimiser of parameter groups, which state their own `weight_decay`."""
        ...


@register("adam", slot="optimizer")
class AdamRule:
    """Adam (arXiv 1412.6980), by torch's fused kernel; `weight_decay` is an L2 term of the gradient.

    Args:
        learning_rate: The rate, or a schedule of it; null takes the algorithm's.
        beta1: The decay of the mean gradient.
        beta2: The decay of the mean squared gradient.
        eps: What is added to the root of the mean square.
        weight_decay: The share of a weight that a step of rate 1 takes away.
    """

    def __init__(
        self,
        learning_rate: Rate = None,
        beta1: Dropout = 0.9,
        beta2: Dropout = 0.999,
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        self.learning_rate, self.weight_decay = _rate(learning_rate), weight_decay
        self.options: dict[str, Any] = {"betas": (beta1, beta2), "eps": eps, "fused": True}

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """torch.optim.Adam."""
        return torch.optim.Adam(groups, **self.options)


@register("adamw", slot="optimizer")
class AdamWRule:
    """Adam with decoupled weight decay (arXiv 1711.05101), by torch's fused kernel.

    Args:
        learning_rate: The rate, or a schedule of it; null takes the algorithm's.
        beta1: The decay of the mean gradient.
        beta2: The decay of the mean squared gradient.
        eps: What is added to the root of the mean square.
        weight_decay: The share of a weight that a step of rate 1 takes away, apart from the gradient.
    """

    def __init__(
        self,
        learning_rate: Rate = None,
        beta1: Dropout = 0.9,
        beta2: Dropout = 0.999,
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        self.learning_rate, self.weight_decay = _rate(learning_rate), weight_decay
        self.options: dict[str, Any] = {"betas": (beta1, beta2), "eps": eps, "fused": True}

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """torch.optim.AdamW."""
        return torch.optim.AdamW(groups, **self.options)


@register("sgd", slot="optimizer")
class SgdRule:
    """Stochastic gradient descent, with momentum if there is any.

    Args:
        learning_rate: The rate, or a schedule of it; null takes the algorithm's.
        momentum: The decay of the velocity.
        nesterov: Whether the gradient is taken where the velocity leads.
        weight_decay: What is added to the gradient for each unit of a weight.
    """

    def __init__(
        self,
        learning_rate: Rate = None,
        momentum: Dropout = 0.0,
        nesterov: bool = False,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        if nesterov and not momentum:
            raise ValueError(f"nesterov needs momentum > 0, found {momentum:g}")
        self.learning_rate, self.weight_decay = _rate(learning_rate), weight_decay
        self.options: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov}

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """torch.optim.SGD."""
        return torch.optim.SGD(groups, **self.options)


def _rate(learning_rate: Rate) -> Callable[[float], float] | None:
    return None if learning_rate is None else schedule(learning_rate)
