"""Layers of one recurrence, each fed by the one below: what LSTM, GRU and minGRU share.

In: (B, F) and a state, or (B, T, F), a state and the steps that begin an episode. Out: (B, H) or (B, T, H), next state.
L layers; the state's tensors are (B, L, H).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.ops.reset_state import State, reset_state
from policysmith.ops.resets import Resets
from policysmith.types import Dropout, FlatFeatures, Repeats, Width

__all__ = ["LayerStates", "StackedMemory", "Weights"]

LayerStates = tuple[Tensor, ...]
Weights = tuple[Any, ...]  # tensors, and None for a bias that is not there


class StackedMemory(nn.Module, ABC):
    """Abstract. A subclass names its state and its weights and says what one layer does, for a step and a sequence.

    Args:
        hidden_size: The width of the state and of the output.
        num_layers: How many layers there are, each fed by the one below.
        dropout: The share of values between two layers that training sets to 0.
        bias: Whether the linear maps add a bias.
        forget_bias: Where the bias of the gate that keeps the past starts; larger remembers longer at first.
        learned_initial_state: Whether an episode begins with a learned state; otherwise with zeros.
    """

    state_names: ClassVar[tuple[str, ...]]
    weight_names: ClassVar[tuple[str, ...]]
    init_role = "recurrent"

    def __init__(
        self,
        in_features: FlatFeatures,
        hidden_size: Width = 128,
        num_layers: Repeats = 1,
        dropout: Dropout = 0.0,
        bias: bool = True,
        forget_bias: float = 0.0,
        learned_initial_state: bool = False,
    ) -> None:
        super().__init__()
        if dropout and num_layers == 1:
            raise ValueError(f"dropout={dropout:g} acts between layers, but num_layers=1")
        if forget_bias and not bias:
            raise ValueError(f"forget_bias={forget_bias:g} needs bias: true")
        self.in_features, self.hidden_size, self.num_layers = in_features, hidden_size, num_layers
        self.dropout, self.forget_bias = dropout, forget_bias
        for layer in range(num_layers):
            shapes = self._shapes(hidden_size if layer else in_features)
            for name, shape in zip(self.weight_names, shapes, strict=True):
                absent = len(shape) == 1 and not bias
                parameter = None if absent else nn.Parameter(torch.empty(shape))
                self.register_parameter(f"{name}_l{layer}", parameter)
        self.reset_parameters()
        self.initial: nn.ParameterDict | None = None
        if learned_initial_state:
            names = [f"{name}_l{layer}" for layer in range(num_layers) for name in self.state_names]
            self.initial = nn.ParameterDict({name: torch.zeros(hidden_size) for name in names})

    @abstractmethod
    def _shapes(self, width: int) -> tuple[tuple[int, ...], ...]:
        """The shapes of one layer's weights, in the order of `weight_names`; the 1-D ones are biases."""

    @abstractmethod
    def _forget_bias(self, layer: int) -> tuple[Tensor, float]:
        """The bias of the gate that keeps the past, and the sign with which it does."""

    @abstractmethod
    def _step(self, x_BF: Tensor, states: LayerStates, weights: Weights) -> LayerStates:
        """One layer, one step: states (B, H), of which the first is also the output."""

    @abstractmethod
    def _sequence(
        self, x_TBF: Tensor, states: LayerStates, initial: LayerStates, weights: Weights, resets: Resets
    ) -> tuple[Tensor, LayerStates]:
        """One layer, T steps: outputs (T, B, H) and the states after; a reset puts back `initial` (1, H) each."""

    def reset_parameters(self) -> None:
        """Start as torch's own recurrent layers do: uniform in ±1/√hidden_size."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self._parameters.values():
            if parameter is not None:
                nn.init.uniform_(parameter, -bound, bound)
        self.start_biases()

    @torch.no_grad()
    def start_biases(self) -> None:
        """Set the biases that start elsewhere than their layer's others; initialisation by role calls it last."""
        if self.forget_bias:
            for layer in range(self.num_layers):
                bias, sign = self._forget_bias(layer)
                bias.fill_(sign * self.forget_bias)

    def initial_state(self, batch: int) -> State:
        """The state of `batch` rows at the beginning of an episode: zeros, or what was learned."""
        if self.initial is None:
            weight = getattr(self, f"{self.weight_names[0]}_l0")
            return {name: weight.new_zeros(batch, self.num_layers, self.hidden_size) for name in self.state_names}
        rows = [self.initial[f"{name}_l{layer}"] for name in self.state_names for layer in range(self.num_layers)]
        learned = torch.stack(rows).view(len(self.state_names), 1, self.num_layers, self.hidden_size)
        return dict(zip(self.state_names, learned.repeat(1, batch, 1, 1), strict=True))

    def forward(self, x_BF: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        """One step: x (B, F) → (B, H), next state. Rows that begin an episode come with the initial state."""
        x, after = x_BF, []
        for layer in range(self.num_layers):
            states = self._step(self._between(layer, x), self._layer(state, layer), self._weights(layer))
            x = states[0]
            after.append(states)
        return x, self._stacked(after)

    def unroll(
        self, x_BTF: Tensor, state: Mapping[str, Tensor], first_BT: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """T steps: x (B, T, F) → (B, T, H), state after the last; `first_BT` bool marks steps that begin an episode."""
        initial, resets, after = self.initial_state(1), Resets.of(first_BT), []
        if first_BT is not None:
            state = reset_state(state, initial, first_BT[:, 0])
        x = x_BTF.transpose(0, 1)
        for layer in range(self.num_layers):
            here, anew = self._layer(state, layer), self._layer(initial, layer)
            x, states = self._sequence(self._between(layer, x), here, anew, self._weights(layer), resets)
            after.append(states)
        return x.transpose(0, 1), self._stacked(after)

    def extra_repr(self) -> str:
        """Sizes, for `repr`."""
        return f"{self.in_features}, {self.hidden_size}, num_layers={self.num_layers}"

    def _between(self, layer: int, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if layer and self.dropout else x

    def _layer(self, state: Mapping[str, Tensor], layer: int) -> LayerStates:
        return tuple(state[name].select(1, layer) for name in self.state_names)

    def _weights(self, layer: int) -> Weights:
        return tuple(getattr(self, f"{name}_l{layer}") for name in self.weight_names)

    def _stacked(self, layers: Sequence[LayerStates]) -> State:
        columns: Iterable[tuple[Tensor, ...]] = zip(*layers, strict=True)
        return {name: torch.stack(column, 1) for name, column in zip(self.state_names, columns, strict=True)}
