"""Rotary positions: queries and keys turned by angles that grow with their step, so scores depend on distances only.

B batch, T time, H heads, D width of a head, R pairs that are turned (D/2, or fewer).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rotary_turns", "rotate"]


def rotary_turns(positions_BT: Tensor, pairs: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Steps (B|1, T) → cosines and signed sines (B|1, T, 1, 2, R) of pair r's angle, step · base^(-r/R).

    (arXiv 2104.09864, section 3.2.) Angles are float32 at least: in half precision they are wrong by radians after a
    thousand steps. The sines are those of (-angle, angle), as `rotate` adds them.
    """
    exact = torch.promote_types(dtype, torch.float32)
    rates_R = base ** (torch.arange(pairs, device=positions_BT.device, dtype=exact) / -pairs)
    angles = positions_BT[:, :, None, None, None] * torch.stack((-rates_R, rates_R))
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x_BTHD: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (r, R + r) of each head; dimensions from 2R on pass as they are."""
    cos, sin = turns
    turned = 2 * cos.shape[-1]
    x = x_BTHD[..., :turned].unflatten(-1, (2, -1))
    y = torch.addcmul(x * cos, x.flip(-2), sin).flatten(-2)
    return y if turned == x_BTHD.shape[-1] else torch.cat((y, x_BTHD[..., turned:]), -1)
