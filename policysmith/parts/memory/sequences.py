"""Two ways through a sequence of one recurrent layer that hold for every cell. T time, B batch, H hidden.

Step by step is the definition, and what compiled code runs; torch's own kernels take stretches without resets.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from policysmith.ops.quiet import quiet
from policysmith.ops.resets import Resets
from policysmith.parts.memory.stacked import LayerStates, Weights

__all__ = ["by_kernel", "step_by_step", "worth_splitting"]

STEPS_A_CALL = 16  # a call of torch's kernel costs about as much as this many steps of ours


def worth_splitting(x_TBF: Tensor, resets: Resets) -> bool:
    """Whether resets are so rare that torch's kernel on the stretches between them beats our own steps."""
    rare = len(resets.steps) * STEPS_A_CALL <= len(x_TBF)
    return rare and not torch.is_autocast_enabled(x_TBF.device.type)


def step_by_step(
    step: Callable[[Tensor, LayerStates, Weights], LayerStates],
    x_TBF: Tensor,
    states: LayerStates,
    initial: LayerStates,
    weights: Weights,
    resets: Resets,
) -> tuple[Tensor, LayerStates]:
    """Call `step` T times, resetting before each."""
    outputs = []
    for t in range(len(x_TBF)):
        states = _entered(t, states, initial, resets)
        states = step(x_TBF[t], states, weights)
        outputs.append(states[0])
    return torch.stack(outputs), states


def by_kernel(
    kernel: Callable[..., Any],
    x_TBF: Tensor,
    states: LayerStates,
    initial: LayerStates,
    weights: Weights,
    resets: Resets,
) -> tuple[Tensor, LayerStates]:
    """Call `kernel` (`torch.lstm`, `torch.gru`) for each stretch of steps between resets of any row."""
    present = [weight for weight in weights if weight is not None]
    # One layer, no dropout, one direction, time first. cuDNN keeps what a backward pass needs only when told to train.
    how = (len(present) == 4, 1, 0.0, torch.is_grad_enabled(), False, False)
    outputs = []
    for start, stop in pairwise([0, *sorted(resets.steps), len(x_TBF)]):
        entered = [state.unsqueeze(0).contiguous() for state in _entered(start, states, initial, resets)]
        given = entered[0] if len(entered) == 1 else entered
        # cuDNN says that it copies weights that don't lie in one piece; to flatten them would tie their storage. On the
        # CPU nothing is said, and no thread waits for another.
        with quiet("RNN module weights are not part of single contiguous chunk") if x_TBF.is_cuda else nullcontext():
            output, *after = kernel(x_TBF[start:stop], given, present, *how)
        outputs.append(output)
        states = tuple(state.squeeze(0) for state in after)
    return torch.cat(outputs), states


def _entered(t: int, states: LayerStates, initial: LayerStates, resets: Resets) -> LayerStates:
    return tuple(resets.enter(t, state, anew) for state, anew in zip(states, initial, strict=True))
