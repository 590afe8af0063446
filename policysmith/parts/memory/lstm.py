"""Long short-term memory, weights interchangeable with `nn.LSTM`; one step in plain operations, sequences fast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from policysmith.ops.lstm_recurrence import lstm_cell, lstm_sequence
from policysmith.ops.resets import Resets, runs_eagerly
from policysmith.parts.memory.sequences import by_kernel, step_by_step, worth_splitting
from policysmith.parts.memory.stacked import LayerStates, StackedMemory, Weights
from policysmith.registry import register

__all__ = ["LSTM"]


@register("lstm", stateful=True, causal=True)
class LSTM(StackedMemory):
    """Long short-term memory with forget gate (Gers, Schmidhuber & Cummins 2000). (F,) a step → (hidden_size,).

    `state_dict`s load from and into `nn.LSTM(in_features, hidden_size, num_layers)`. The state is `h` and `c`,
    (B, num_layers, hidden_size) each. `dropout` acts between layers, `forget_bias` is where the forget gate's bias
    starts (1 remembers longer; Jozefowicz et al. 2015). Weights start orthogonal, each matrix as a whole, biases 0.
    Gradients of `unroll` are first-order.
    """

    state_names = ("h", "c")
    weight_names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

    def _shapes(self, width: int) -> tuple[tuple[int, ...], ...]:
        gates = 4 * self.hidden_size
        return (gates, width), (gates, self.hidden_size), (gates,), (gates,)

    def _forget_bias(self, layer: int) -> tuple[Tensor, float]:
        return getattr(self, f"bias_ih_l{layer}").chunk(4)[1], 1.0

    def _step(self, x_BF: Tensor, states: LayerStates, weights: Weights) -> LayerStates:
        (h, c), (weight_ih, weight_hh, bias_ih, bias_hh) = states, weights
        return lstm_cell(F.linear(x_BF, weight_ih, bias_ih) + F.linear(h, weight_hh, bias_hh), c)

    def _sequence(
        self, x_TBF: Tensor, states: LayerStates, initial: LayerStates, weights: Weights, resets: Resets
    ) -> tuple[Tensor, LayerStates]:
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        if not runs_eagerly(x_TBF, weight_ih, weight_hh):
            return step_by_step(self._step, x_TBF, states, initial, weights, resets)
        if worth_splitting(x_TBF, resets):
            return by_kernel(torch.lstm, x_TBF, states, initial, weights, resets)
        bias = None if bias_ih is None else bias_ih + bias_hh
        inputs = F.linear(x_TBF, weight_ih, bias).to(states[0].dtype)
        return lstm_sequence(inputs, states, initial, weight_hh, resets)
