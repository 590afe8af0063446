"""Legal masks: from whatever an environment gives to one boolean tensor for each discrete leaf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policysmith.errors import MaskError, ShapeError, did_you_mean

__all__ = ["legal_masks", "rows_alive"]


def legal_masks(
    space: spaces.Space[Any], mask: Any, rows: int, device: torch.device, *, strict: bool = False
) -> list[Tensor]:
    """One mask for each discrete leaf of the action space, depth first: bool (rows, width), or (1, width) for all rows.

    Bool, integer and float masks pass (non-zero is legal). In a composite space the mask has its structure; what is
    left out or None is all legal. `ShapeError` says what does not fit, and with `strict` `MaskError` of a row without a
    legal action.
    """
    found = [_tensor(leaf, given, rows, device) for leaf, given in _leaves(space, mask, "the legal mask")]
    if strict and not (alive := rows_alive(space, found)).all():
        dead = (~alive).nonzero().flatten().tolist()
        raise MaskError(f"no legal action in row {', '.join(map(str, dead[:8]))}; strict_masks is on")
    return found


def rows_alive(space: spaces.Space[Any], masks: Sequence[Tensor]) -> Tensor:
    """(rows,) whether every choice of a row has a legal action, by the masks that `legal_masks` gave; (1,) of all."""
    leaves = [leaf for leaf, _ in _leaves(space, None, "")]
    choices = [part.any(-1) for leaf, mask in zip(leaves, masks, strict=True) for part in mask.split(_sizes(leaf), -1)]
    return torch.stack(torch.broadcast_tensors(*choices)).all(0)


def _sizes(space: Any) -> list[int]:
    """How many options each choice of a discrete space has."""
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.flat]
    return [2] * int(np.prod(space.shape)) if isinstance(space, spaces.MultiBinary) else [int(space.n)]


def _leaves(space: Any, mask: Any, name: str) -> Iterator[tuple[Any, Any]]:
    if isinstance(space, spaces.Dict):
        if mask is not None and not isinstance(mask, Mapping):
            raise ShapeError(f"{name} must be a dict like the action space, found {_describe(mask)}")
        for key in mask or {}:
            if key not in space.spaces:
                hint = did_you_mean(key, map(str, space.spaces))
                raise ShapeError(f"{name} has a key {key!r}{hint}; the action space has: {', '.join(map(str, space))}")
        for key, inner in space.spaces.items():
            yield from _leaves(inner, (mask or {}).get(key), f"{name} of {key!r}")
    elif isinstance(space, spaces.Tuple):
        if mask is not None and (not isinstance(mask, tuple | list) or len(mask) > len(space.spaces)):
            raise ShapeError(f"{name} must be a tuple of at most {len(space.spaces)}, found {_describe(mask)}")
        for index, inner in enumerate(space.spaces):
            given = mask[index] if mask is not None and index < len(mask) else None
            yield from _leaves(inner, given, f"{name}[{index}]")
    elif isinstance(space, spaces.Box):
        if mask is not None:
            raise ShapeError(f"{name}: a Box has no mask, found {_describe(mask)}")
    else:
        yield space, mask


def _tensor(space: Any, mask: Any, rows: int, device: torch.device) -> Tensor:
    width = sum(_sizes(space))
    if mask is None:
        return torch.ones(1, width, dtype=torch.bool, device=device)
    if isinstance(mask, Mapping):
        raise ShapeError(f"the legal mask must be an array of width {width}, found {_describe(mask)}")
    tensor = mask if isinstance(mask, Tensor) else torch.as_tensor(_joined(mask), device=device)
    if tensor.dtype != torch.bool:
        tensor = tensor != 0
    if tensor.dim() == 1:
        tensor = tensor.unsqueeze(0)
    if tensor.shape[-1:] != (width,) or tensor.shape[0] not in (1, rows):
        found = tuple(getattr(mask, "shape", tensor.shape))
        raise ShapeError(f"the legal mask has shape {found}, expected ({rows}, {width}) or ({width},)")
    return tensor


def _joined(mask: Any) -> Any:
    """A MultiDiscrete mask may come as gymnasium's tuple with one array for each variable."""
    if isinstance(mask, tuple) and mask and np.ndim(mask[0]) > 0:
        return np.concatenate([np.asarray(part) for part in mask], -1)
    return mask


def _describe(mask: Any) -> str:
    shape = getattr(mask, "shape", None)
    return f"an array of shape {tuple(shape)}" if shape is not None else type(mask).__name__
