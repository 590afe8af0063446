"""The LSTM: one step in plain operations, and a sequence whose gradient is written out (half the time of autograd's).

Shapes: T time, B batch, H hidden, G = 4H gates in torch's order (input, forget, cell, output).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from policysmith.ops.resets import Resets

__all__ = ["lstm_cell", "lstm_sequence"]

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


def lstm_cell(gates_BG: Tensor, c_BH: Tensor) -> tuple[Tensor, Tensor]:
    """One step from the summed pre-activations and the cell state: (h, c), (B, H) each."""
    i, f, g, o = gates_BG.chunk(4, -1)
    c = (f.sigmoid() * c_BH).addcmul(i.sigmoid(), g.tanh())
    return o.sigmoid() * c.tanh(), c


def lstm_sequence(
    inputs_TBG: Tensor,
    start: Sequence[Tensor],
    initial: Sequence[Tensor],
    weight_GH: Tensor,
    resets: Resets,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """All steps: outputs (T, B, H) and the final (h, c).

    `inputs_TBG` is the inputs' share of the pre-activations, biases included; `start` is (h, c), (B, H) each, and
    `initial`, (1, H) each, what a reset puts back. Differentiable once; for tensors that `runs_eagerly` accepts.
    """
    h_TBH, c_BH = _Sequence.apply(inputs_TBG, weight_GH, resets, *start, *initial)
    return h_TBH, (h_TBH[-1], c_BH)


class _Sequence(torch.autograd.Function):
    """(inputs, weight, resets, h, c, initial h, initial c) → (h of every step, final c)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, resets: Resets, *states: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(inputs.device.type, enabled=False):
            gates, h_all, c_all, tanh_c = _run(inputs, weight.T, resets, *states)
        ctx.save_for_backward(gates, h_all, c_all, tanh_c, weight, *states)
        ctx.resets = resets
        return h_all, c_all[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, d_c: Tensor) -> tuple[Tensor | None, ...]:
        gates, h_all, c_all, tanh_c, weight, h, c, initial_h, initial_c = ctx.saved_tensors
        resets: Resets = ctx.resets
        d_initial_h = torch.zeros_like(initial_h) if ctx.needs_input_grad[5] else None
        d_initial_c = torch.zeros_like(initial_c) if ctx.needs_input_grad[6] else None
        with torch.autocast(gates.device.type, enabled=False):
            d_gates, slope_c = _slopes(gates, resets.enter_all(c, c_all, initial_c), tanh_c)
            by_gate = d_gates.unflatten(-1, (4, -1))
            slope_ifg, slope_o, forget = by_gate[:, :, :3], by_gate[:, :, 3], gates.chunk(4, -1)[1]
            d_h, d_c = torch.zeros_like(h), d_c.clone()
            for t in reversed(range(len(gates))):
                d_h.add_(d_outputs[t])
                d_c.addcmul_(d_h, slope_c[t])
                slope_ifg[t].mul_(d_c.unsqueeze(1))
                slope_o[t].mul_(d_h)
                torch.mm(d_gates[t], weight, out=d_h)
                d_c.mul_(forget[t])
                resets.leave_(t, d_h, d_initial_h)
                resets.leave_(t, d_c, d_initial_c)
            d_weight = None
            if ctx.needs_input_grad[1]:
                d_weight = d_gates.flatten(0, 1).T @ resets.enter_all(h, h_all, initial_h).flatten(0, 1)
        return d_gates, d_weight, None, d_h, d_c, d_initial_h, d_initial_c


def _run(
    inputs: Tensor, weight_t: Tensor, resets: Resets, h: Tensor, c: Tensor, initial_h: Tensor, initial_c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of every step the gates after their activations, h, c and tanh(c)."""
    steps, batch, _ = inputs.shape
    size = h.shape[-1]
    gates = inputs.new_empty(inputs.shape)
    h_all, c_all, tanh_c = inputs.new_empty(3, steps, batch, size).unbind()
    i, f, g, o = gates.chunk(4, -1)
    i_and_f = gates[..., : 2 * size]
    for t in range(steps):
        if t in resets.steps:
            h, c = resets.enter(t, h, initial_h), resets.enter(t, c, initial_c)
        torch.addmm(inputs[t], h, weight_t, out=gates[t])
        i_and_f[t].sigmoid_()
        g[t].tanh_()
        o[t].sigmoid_()
        c = torch.mul(f[t], c, out=c_all[t]).addcmul_(i[t], g[t])
        h = torch.mul(o[t], torch.tanh(c, out=tanh_c[t]), out=h_all[t])
    return gates, h_all, c_all, tanh_c


def _slopes(gates: Tensor, c_before: Tensor, tanh_c: Tensor) -> tuple[Tensor, Tensor]:
    """Of all steps at once, the factors from dc to the gates i, f, g and from dh to o; and from dh to dc."""
    slopes, slope_c = torch.empty_like(gates), torch.empty_like(tanh_c)
    i, f, g, o = gates.chunk(4, -1)
    slope_i, slope_f, slope_g, slope_o = slopes.chunk(4, -1)
    _sigmoid_backward(g, i, grad_input=slope_i)
    _sigmoid_backward(c_before, f, grad_input=slope_f)
    _tanh_backward(i, g, grad_input=slope_g)
    _sigmoid_backward(tanh_c, o, grad_input=slope_o)
    _tanh_backward(o, tanh_c, grad_input=slope_c)
    return slopes, slope_c
