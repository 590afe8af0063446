"""The memory of legacy agents: h and c of every layer in one tensor. L layers, B rows, H hidden.

In: one form of the state. Out: the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from policysmith.errors import ShapeError

__all__ = ["pack_state", "unpack_state"]

CORE = "_core_"


def unpack_state(packed: Tensor, name: str = CORE) -> dict[str, Tensor]:
    """h ‖ c (2L, B, H) → the state of our policies: `<name>/h` and `<name>/c`, (B, L, H) each.

    Raises `ShapeError` for another number of dimensions, or an odd number of layers.
    """
    if packed.dim() != 3 or len(packed) % 2:
        raise ShapeError(f"a packed state has shape (2L, B, H), found {tuple(packed.shape)}")
    h, c = (half.transpose(0, 1).contiguous() for half in packed.chunk(2))
    return {f"{name}/h": h, f"{name}/c": c}


def pack_state(state: Mapping[str, Tensor], name: str = CORE) -> Tensor:
    """The state of our policies → h ‖ c (2L, B, H)."""
    return torch.cat([state[f"{name}/h"], state[f"{name}/c"]], 1).transpose(0, 1).contiguous()
