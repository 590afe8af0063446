"""Rotary positions: queries and keys turned by angles that grow with their step, so scores depend on distances only.

B batch, T time, H heads, D width of a head, R pairs that are turned (D/2, or fewer).
"""

from __future__ import annotations

import torch
from torch import Tensor

from policysmith.ops.leaf_function import leaf_function

__all__ = ["rotary_turns", "rotate"]


@leaf_function
def rotary_turns(positions_BT: Tensor, pairs: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Steps (B|1, T) → cosines and signed sines (B|1, T, 1, 2, R) of pair r's angle, step · base^(-r/R).

    (arXiv 2104.09864, section 3.2.) They are of `dtype`, but float32 at least: angles in half precision are wrong by
    radians after a thousand steps. The sines are those of (-angle, angle), as `rotate` adds them.
    """
    exact = dtype if dtype == torch.float32 else torch.promote_types(dtype, torch.float32)
    rates_R = torch.logspace(0, 1 / pairs - 1, pairs, base, device=positions_BT.device, dtype=exact)
    angles = positions_BT.view(*positions_BT.shape, 1, 1, 1) * torch.stack((-rates_R, rates_R))
    return angles.cos(), angles.sin()


@leaf_function
def rotate(x_BTHD: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (r, R + r) of each head; dimensions from 2R on pass as they are."""
    cos, sin = turns
    if cos.dtype != x_BTHD.dtype:
        cos, sin = cos.to(x_BTHD.dtype), sin.to(x_BTHD.dtype)
    pairs, width = cos.shape[-1], x_BTHD.shape[-1]
    if 2 * pairs == width:
        return _turn(x_BTHD, cos, sin)
    turned, as_they_are = x_BTHD.split((2 * pairs, width - 2 * pairs), -1)
    return torch.cat((_turn(turned, cos, sin), as_they_are), -1)


def _turn(x_BTHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    x = x_BTHD.view(*x_BTHD.shape[:-1], 2, cos.shape[-1])
    return torch.addcmul(x * cos, x.flip(-2), sin).flatten(-2)
