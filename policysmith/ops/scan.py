"""The linear recurrence h_t = decay_t · h_{t-1} + add_t over a sequence with resets. T time, B batch, H features.

On a CPU steps run in turn, with a gradient written out; elsewhere, and in compiled code, pairs of steps are combined
in O(log T) rounds. Nothing is divided and decays multiply, so long products vanish instead of overflowing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from policysmith.ops.resets import Resets, runs_eagerly

__all__ = ["linear_scan"]


def linear_scan(decay_TBH: Tensor, add_TBH: Tensor, start_BH: Tensor, initial_1H: Tensor, resets: Resets) -> Tensor:
    """All states (T, B, H), from `start_BH`, or `initial_1H` (1, H) in rows that reset; O(T) work.

    Nothing before a reset, a NaN neither, changes anything after it. On an eager CPU differentiable once.
    """
    if decay_TBH.device.type == "cpu" and runs_eagerly(decay_TBH, add_TBH):
        return _Steps.apply(decay_TBH, add_TBH, start_BH, initial_1H, resets)
    add_0 = add_TBH[:1].addcmul(decay_TBH[:1], start_BH)
    first = resets.first_TB1
    if first is None:
        return _combine(decay_TBH, torch.cat([add_0, add_TBH[1:]]), None)
    begun = torch.where(first[1:], add_TBH[1:].addcmul(decay_TBH[1:], initial_1H), add_TBH[1:])
    return _combine(decay_TBH, torch.cat([add_0, begun]), first)


def _combine(decay: Tensor, add: Tensor, first: Tensor | None) -> Tensor:
    """The scan from zero: solve it for pairs of steps, which gives every second state; the rest follow by one step.

    What comes before a marked step is left out.
    """
    steps = len(add)
    if steps == 1:
        return add
    half, rest = steps // 2, (steps - 1) // 2
    even, odd, later = slice(0, 2 * half, 2), slice(1, None, 2), slice(2, None, 2)
    marks = _pick(first, odd)
    pair_decay = decay[odd] * _drop(decay[even], marks)
    pair_add = add[odd].addcmul(decay[odd], _drop(add[even], marks))
    pair_first = None if first is None or marks is None else marks | first[even]
    h_odd = _combine(pair_decay, pair_add, pair_first)
    h_even = torch.cat([add[:1], add[later].addcmul(decay[later], _drop(h_odd[:rest], _pick(first, later)))])
    h = torch.stack([h_even[:half], h_odd], 1).flatten(0, 1)
    return torch.cat([h, h_even[half:]]) if steps % 2 else h


def _pick(first: Tensor | None, steps: slice) -> Tensor | None:
    return None if first is None else first[steps]


def _drop(tensor: Tensor, marks: Tensor | None) -> Tensor:
    return tensor if marks is None else tensor.masked_fill(marks, 0)


class _Steps(torch.autograd.Function):
    """(decay, add, start, initial, resets) → the state of every step."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, add: Tensor, start: Tensor, initial: Tensor, resets: Resets) -> Tensor:
        h, h_all = start, add.new_empty(add.shape)
        for t in range(len(add)):
            if t in resets.steps:
                h = resets.enter(t, h, initial)
            h = torch.addcmul(add[t], decay[t], h, out=h_all[t])
        ctx.save_for_backward(decay, h_all, start, initial)
        ctx.resets = resets
        return h_all

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        decay, h_all, start, initial = ctx.saved_tensors
        resets: Resets = ctx.resets
        d_initial = torch.zeros_like(initial) if ctx.needs_input_grad[3] else None
        d_h, d_add = torch.zeros_like(start), torch.empty_like(h_all)
        for t in reversed(range(len(decay))):
            torch.add(d_h, d_outputs[t], out=d_add[t])
            torch.mul(d_add[t], decay[t], out=d_h)
            resets.leave_(t, d_h, d_initial)
        return d_add * resets.enter_all(start, h_all, initial), d_add, d_h, d_initial, None
