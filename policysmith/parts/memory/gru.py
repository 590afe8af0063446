"""Gated recurrent unit, weights interchangeable with `nn.GRU`; one step in plain operations, sequences fast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from policysmith.ops.gru_recurrence import gru_cell, gru_sequence
from policysmith.ops.resets import Resets, runs_eagerly
from policysmith.parts.memory.sequences import by_kernel, step_by_step, worth_splitting
from policysmith.parts.memory.stacked import LayerStates, StackedMemory, Weights
from policysmith.registry import register

__all__ = ["GRU"]


@register("gru", stateful=True, causal=True)
class GRU(StackedMemory):
    """Gated recurrent unit (arXiv 1406.1078), its reset gate after the product as in torch.

    (F,) a step → (hidden_size,). `state_dict`s load from and into `nn.GRU(in_features, hidden_size, num_layers)`. The
    state is `h`, (B, num_layers, hidden_size). `dropout` acts between layers, `forget_bias` is where the bias of the
    update gate, which keeps the past, starts. Weights start orthogonal, each matrix as a whole, biases 0. Gradients of
    `unroll` are first-order.
    """

    state_names = ("h",)
    weight_names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

    def _shapes(self, width: int) -> tuple[tuple[int, ...], ...]:
        gates = 3 * self.hidden_size
        return (gates, width), (gates, self.hidden_size), (gates,), (gates,)

    def _forget_bias(self, layer: int) -> tuple[Tensor, float]:
        return getattr(self, f"bias_ih_l{layer}").chunk(3)[1], 1.0

    def _step(self, x_BF: Tensor, states: LayerStates, weights: Weights) -> LayerStates:
        (h,), (weight_ih, weight_hh, bias_ih, bias_hh) = states, weights
        return (gru_cell(F.linear(x_BF, weight_ih, bias_ih), F.linear(h, weight_hh, bias_hh), h),)

    def _sequence(
        self, x_TBF: Tensor, states: LayerStates, initial: LayerStates, weights: Weights, resets: Resets
    ) -> tuple[Tensor, LayerStates]:
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        if not runs_eagerly(x_TBF, weight_ih, weight_hh):
            return step_by_step(self._step, x_TBF, states, initial, weights, resets)
        if x_TBF.device.type != "cpu" and worth_splitting(x_TBF, resets):  # torch's GRU for CPUs is no faster
            return by_kernel(torch.gru, x_TBF, states, initial, weights, resets)
        inputs = F.linear(x_TBF, weight_ih, bias_ih).to(states[0].dtype)
        h_TBH = gru_sequence(inputs, states[0], initial[0], weight_hh, bias_hh, resets)
        return h_TBH, (h_TBH[-1],)
