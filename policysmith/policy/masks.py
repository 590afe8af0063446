"""Legal masks: from whatever an environment gives to one boolean tensor for each discrete leaf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from policysmith.errors import ShapeError
from policysmith.policy.spaces import SpacePath, pick

__all__ = ["legal_mask"]


def legal_mask(mask: Any, path: SpacePath, width: int, device: torch.device) -> Tensor:
    """The mask of the leaf at `path`: bool (B, width) or, to broadcast, (1, width).

    Bool, integer and float masks pass (non-zero is legal); a missing leaf of a composite is all legal.
    """
    try:
        found = pick(mask, path)
    except (KeyError, IndexError, TypeError):
        return torch.ones(1, width, dtype=torch.bool, device=device)
    tensor = found if isinstance(found, Tensor) else torch.as_tensor(_joined(found), device=device)
    if tensor.dtype != torch.bool:
        tensor = tensor != 0
    if tensor.shape[-1:] != (width,):
        raise ShapeError(f"the legal mask has shape {tuple(tensor.shape)}, expected (B, {width}) or ({width},)")
    return tensor.unsqueeze(0) if tensor.dim() == 1 else tensor


def _joined(value: Any) -> Any:
    """MultiDiscrete masks may come as gymnasium's tuple of arrays, one for each variable."""
    if isinstance(value, Sequence) and len(value) and hasattr(value[0], "__len__") and not isinstance(value, list):
        return [bit for part in value for bit in part]
    return value
