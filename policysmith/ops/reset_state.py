"""Resetting the memory of rows whose episode begins. B is the batch.

In and out: a state, a dict of tensors with the batch first.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["State", "reset_state"]

State = dict[str, Tensor]


def reset_state(state: Mapping[str, Tensor], initial: Mapping[str, Tensor], first_B: Tensor) -> State:
    """Rows marked in `first_B` (B,) bool from `initial`, the others from `state`; a NaN in a dropped row is gone.

    `initial` has a batch of B, or of 1 for all rows.
    """
    return {
        name: torch.where(first_B.view(-1, *(1,) * (tensor.dim() - 1)), initial[name], tensor)
        for name, tensor in state.items()
    }
