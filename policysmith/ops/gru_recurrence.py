"""The GRU: one step in plain operations, and a sequence whose gradient is written out (half the time of autograd's).

Shapes: T time, B batch, H hidden, G = 3H gates in torch's order (reset, update, new).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from policysmith.ops.resets import Resets

__all__ = ["gru_cell", "gru_sequence"]

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


def gru_cell(inputs_BG: Tensor, hidden_BG: Tensor, h_BH: Tensor) -> Tensor:
    """One step from the inputs' and the hidden state's pre-activations, which the reset gate keeps apart: h (B, H)."""
    r_x, z_x, n_x = inputs_BG.type_as(h_BH).chunk(3, -1)  # autocast makes them narrower
    r_h, z_h, n_h = hidden_BG.type_as(h_BH).chunk(3, -1)
    n = n_x.addcmul((r_x + r_h).sigmoid(), n_h).tanh()
    return n.lerp(h_BH, (z_x + z_h).sigmoid())


def gru_sequence(
    inputs_TBG: Tensor,
    start_BH: Tensor,
    initial_1H: Tensor,
    weight_GH: Tensor,
    bias_G: Tensor | None,
    resets: Resets,
) -> Tensor:
    """All steps: outputs (T, B, H), the last of which is the final state.

    `inputs_TBG` is the inputs' share of the pre-activations, `weight_GH` and `bias_G` make the hidden state's;
    `initial_1H` is what a reset puts back. Differentiable once; for tensors that `runs_eagerly` accepts.
    """
    bias = inputs_TBG.new_zeros(weight_GH.shape[0]) if bias_G is None else bias_G
    return _Sequence.apply(inputs_TBG, weight_GH, bias, resets, start_BH, initial_1H)


class _Sequence(torch.autograd.Function):
    """(inputs, weight, bias, resets, h, initial h) → h of every step."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, resets: Resets, h: Tensor, initial: Tensor
    ) -> Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            gates, new, h_all = _run(inputs, weight.T, bias, resets, h, initial)
        ctx.save_for_backward(gates, new, h_all, weight, h, initial)
        ctx.resets = resets
        return h_all

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gates, new, h_all, weight, h, initial = ctx.saved_tensors
        resets: Resets = ctx.resets
        h_before = resets.enter_all(h, h_all, initial)
        d_initial = torch.zeros_like(initial) if ctx.needs_input_grad[5] else None
        with torch.autocast(gates.device.type, enabled=False):
            d_hidden, slope_n = _slopes(gates, new, h_before)
            by_gate, z = d_hidden.unflatten(-1, (3, -1)), gates.chunk(3, -1)[1]
            d_h, d_all = torch.zeros_like(h), torch.empty_like(new)
            for t in reversed(range(len(gates))):
                torch.add(d_h, d_outputs[t], out=d_all[t])
                by_gate[t].mul_(d_all[t].unsqueeze(1))
                d_h = torch.addmm(d_all[t] * z[t], d_hidden[t], weight)
                resets.leave_(t, d_h, d_initial)
            d_inputs = d_hidden.clone()
            torch.mul(d_all, slope_n, out=d_inputs.chunk(3, -1)[2])
            flat = d_hidden.flatten(0, 1)
            d_weight = flat.T @ h_before.flatten(0, 1) if ctx.needs_input_grad[1] else None
        return d_inputs, d_weight, flat.sum(0), None, d_h, d_initial


def _run(
    inputs: Tensor, weight_t: Tensor, bias: Tensor, resets: Resets, h: Tensor, initial: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of every step (r, z after their activations and the hidden state's share of n), n, and h."""
    steps, batch, _ = inputs.shape
    size = h.shape[-1]
    gates = inputs.new_empty(inputs.shape)
    new, h_all = inputs.new_empty(2, steps, batch, size).unbind()
    r, z, n_h = gates.chunk(3, -1)
    r_and_z = gates[..., : 2 * size]
    x_rz, x_n = inputs[..., : 2 * size], inputs[..., 2 * size :]
    for t in range(steps):
        if t in resets.steps:
            h = resets.enter(t, h, initial)
        torch.addmm(bias, h, weight_t, out=gates[t])
        r_and_z[t].add_(x_rz[t]).sigmoid_()
        n = torch.addcmul(x_n[t], r[t], n_h[t], out=new[t]).tanh_()
        h = torch.lerp(n, h, z[t], out=h_all[t])
    return gates, new, h_all


def _slopes(gates: Tensor, new: Tensor, h_before: Tensor) -> tuple[Tensor, Tensor]:
    """Of all steps at once, the factors from dh to the hidden state's pre-activations, and to the inputs' n."""
    r, z, n_h = gates.chunk(3, -1)
    slopes = torch.empty_like(gates)
    slope_r, slope_z, slope_n_h = slopes.chunk(3, -1)
    slope_n = (1 - z) * (1 - new * new)
    _sigmoid_backward(slope_n * n_h, r, grad_input=slope_r)
    _sigmoid_backward(h_before - new, z, grad_input=slope_z)
    torch.mul(slope_n, r, out=slope_n_h)
    return slopes, slope_n
