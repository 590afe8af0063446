"""The two heads of an actor-critic: action parameters and state value.

In: features (*, F), joined by the graph. Out: (*, P) and (*,).
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from policysmith.ops.init import with_role
from policysmith.parts.activations import Activation
from policysmith.parts.mlp import MLP
from policysmith.policy.log_std import LogStd, Std, log_std_range
from policysmith.registry import Infer, register
from policysmith.types import Width

__all__ = ["ActionHead", "ValueHead"]


@register("action_head", role="policy")
class ActionHead(nn.Module):
    """Features (*, F) → distribution parameters (*, P) for the action space.

    `std` of a Box: `independent` of the state (one free log-deviation a dimension, starting at `initial_std`) or
    `dependent` on it. `squash` bounds Box actions by tanh. `temperature` divides logits, alike when acting and when
    evaluating; it is for spaces without Box leaves.

    Args:
        hidden: The units of each hidden layer of its own.
        activation: The nonlinearity behind its hidden layers.
        std: Whether the deviation of continuous actions is a parameter or follows from the observation.
        initial_std: Where the standard deviation starts.
        squash: Whether continuous actions pass through tanh into their bounds.
        log_std_min: The lowest logarithm of the deviation; null for -20.
        log_std_max: The highest; null for 2 where it follows from the observation, else 10 above the start.
        temperature: What the logits of discrete actions are divided by.
    """

    def __init__(
        self,
        in_features: Annotated[int, Infer("flat_features")],
        layout: Annotated[tuple[tuple[int, int], ...], Infer("action_layout")],
        hidden: list[Width] = [],  # noqa: B006 - read only
        activation: Activation = "tanh",
        std: Std = "independent",
        initial_std: Annotated[float, Gt(0)] = 1.0,
        squash: bool = False,
        temperature: Annotated[float, Gt(0)] = 1.0,
        log_std_min: LogStd | None = None,
        log_std_max: LogStd | None = None,
    ) -> None:
        super().__init__()
        log_std_range(std, initial_std, log_std_min, log_std_max)
        self.layout, self.temperature = layout, temperature
        self.body = MLP(in_features, hidden, activation) if hidden else nn.Identity()
        self.out = with_role(nn.Linear(hidden[-1] if hidden else in_features, sum(n for n, _ in layout)), "policy_out")
        free = sum(extra for _, extra in layout)
        self.log_std = nn.Parameter(torch.full((free,), float(initial_std)).log()) if free else None
        if temperature != 1 and (free or std == "dependent"):
            raise ValueError(f"temperature={temperature} is for logits; a Box has initial_std")

    def forward(self, x: Tensor) -> Tensor:
        """x (*, F) → (*, P)."""
        y = self.out(self.body(x))
        if self.temperature != 1:
            y = y / self.temperature
        if self.log_std is None:
            return y
        if len(self.layout) == 1:
            return torch.cat([y, self.log_std.expand_as(y)], -1)
        return self._interleave(y, self.log_std)

    def _interleave(self, y: Tensor, log_std: Tensor) -> Tensor:
        pieces: list[Tensor] = []
        start = free = 0
        for size, extra in self.layout:
            piece = y.narrow(-1, start, size)
            pieces.append(piece)
            if extra:
                pieces.append(log_std.narrow(0, free, extra).expand_as(piece))
            start, free = start + size, free + extra
        return torch.cat(pieces, -1)


@register("value_head", role="value")
class ValueHead(nn.Module):
    """Features (*, F) → state value (*,), in units of (discounted) return.

    Args:
        hidden: The units of each hidden layer of its own.
        activation: The nonlinearity behind its hidden layers.
    """

    def __init__(
        self,
        in_features: Annotated[int, Infer("flat_features")],
        hidden: list[Width] = [],  # noqa: B006 - read only
        activation: Activation = "tanh",
    ) -> None:
        super().__init__()
        self.body = MLP(in_features, hidden, activation) if hidden else nn.Identity()
        self.out = with_role(nn.Linear(hidden[-1] if hidden else in_features, 1), "value_out")

    def forward(self, x: Tensor) -> Tensor:
        """x (*, F) → (*,)."""
        return self.out(self.body(x)).squeeze(-1)
