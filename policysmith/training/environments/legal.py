"""Legal masks of a vector of environments, by whatever way they come. N environments.

In: the info of a vector, in which rows may have no mask, or the observation's own leaf. Out: one mask (N, …) in the
structure of the action space, or None where every action is legal; and a word about rows that have no legal action.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from policysmith.errors import MaskError
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.masks import legal_masks, rows_alive
from policysmith.policy.observations import MASK
from policysmith.policy.spaces import pick

__all__ = ["LegalRows", "begun_info", "merged_masks", "vector_mask"]


def vector_mask(info: Mapping[str, Any] | None) -> Any:
    """The masks in the info of a vector, (N, …); None where there are none.

    gymnasium's info is sparse: `_action_mask` says which rows have one, and the others are zeros. A missing mask means
    that all is legal.
    """
    if not info or info.get(MASK) is None:
        return None
    return _whole(info[MASK], info.get(f"_{MASK}"))


def begun_info(info: Mapping[str, Any], begun: Mapping[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """The info of a step after which some rows (N,) have begun anew: their legal actions are those of `begun`."""
    mask = merged_masks(vector_mask(info), vector_mask(begun), rows)
    kept = {key: value for key, value in info.items() if key not in (MASK, f"_{MASK}")}
    return kept if mask is None else {**kept, MASK: mask}


def merged_masks(old: Any, new: Any, rows: np.ndarray) -> Any:
    """Masks (N, …) with some rows replaced by those of `new`; None means that all is legal."""
    if old is None and new is None:
        return None
    if isinstance(old, Mapping) or isinstance(new, Mapping):
        keys = [*(old or {}), *(key for key in new or {} if key not in (old or {}))]
        return {key: merged_masks((old or {}).get(key), (new or {}).get(key), rows) for key in keys}
    if isinstance(old, tuple) or isinstance(new, tuple):
        length = len(old if old is not None else new)
        pairs = zip(old or (None,) * length, new or (None,) * length, strict=True)
        return tuple(merged_masks(one, other, rows) for one, other in pairs)
    merged = np.ones_like(new) if old is None else np.array(old)
    merged[rows] = 1 if new is None else new[rows]
    return merged


class LegalRows:
    """Masks for a policy, and a word, once, about an environment that leaves no legal action.

    Where the policy is told to be strict, `MaskError` is raised in its place.
    """

    def __init__(self, policy: ActorCritic) -> None:
        self._policy, self._space = policy, policy.actions.space
        self._path = policy.observations.mask_path
        self._plain = isinstance(self._space, spaces.Discrete)
        self._told = False

    def mask(self, observation: Any, info: Mapping[str, Any] | None, resets: np.ndarray | None) -> Any:
        """The masks of the info, else None: a policy reads the leaf of its observation itself.

        Rows whose next step is a reset (N,) need none: what ended an episode may well have left nothing to do.
        """
        mask = vector_mask(info)
        looked = mask if mask is not None or self._path is None else pick(observation, self._path)
        if looked is None or (self._plain and isinstance(looked, np.ndarray) and looked.any(-1).all()):
            return mask
        if self._plain and self._told and not self._policy.strict_masks:
            return mask
        return self._looked_at(mask, looked, resets)

    def _looked_at(self, mask: Any, looked: Any, resets: np.ndarray | None) -> Any:
        rows = _rows(looked)
        alive = rows_alive(self._space, legal_masks(self._space, looked, rows, torch.device("cpu"))).numpy()
        dead = ~np.broadcast_to(alive, rows)
        if not dead.any():
            return mask
        over = dead & resets if resets is not None else np.zeros(rows, dtype=bool)
        if (dead & ~over).any():
            self._tell(np.flatnonzero(dead & ~over))
        return merged_masks(looked, None, over) if over.any() else mask

    def _tell(self, rows: np.ndarray) -> None:
        several = "s" if len(rows) > 1 else ""
        said = f"environment{several} {', '.join(map(str, rows[:8]))}: the legal mask leaves no action"
        if self._policy.strict_masks:
            raise MaskError(f"{said}, and strict_masks is on")
        if not self._told:
            self._told = True
            warnings.warn(f"{said}, so action 0 is taken; execution: {{strict_masks: true}} stops there", stacklevel=4)


def _whole(mask: Any, rows: np.ndarray | None) -> Any:
    """The mask without gymnasium's keys beside it; all is legal in rows that have none."""
    if isinstance(mask, Mapping):
        names = [key for key in mask if not (isinstance(key, str) and key.startswith("_") and key[1:] in mask)]
        return {key: _whole(mask[key], mask.get(f"_{key}", rows)) for key in names}
    if isinstance(mask, np.ndarray) and mask.dtype == object:  # lists and tuples come row by row
        return _stacked(list(mask))
    if rows is None or rows.all():
        return mask
    whole = np.array(mask)
    whole[~rows] = 1
    return whole


def _stacked(rows: Sequence[Any]) -> Any:
    """Masks of single environments, None where there is none → one structure of arrays (N, …)."""
    first = next((row for row in rows if row is not None), None)
    if first is None:
        return None
    if isinstance(first, Mapping):
        return {key: _stacked([None if row is None else row.get(key) for row in rows]) for key in first}
    if isinstance(first, tuple | list) and any(part is None or np.ndim(part) for part in first):
        return tuple(_stacked([None if row is None else row[i] for row in rows]) for i in range(len(first)))
    return np.stack([np.ones_like(first) if row is None else np.asarray(row) for row in rows])


def _rows(mask: Any) -> int:
    """How many rows a mask (N, …) has."""
    while isinstance(mask, Mapping | tuple):
        parts = mask.values() if isinstance(mask, Mapping) else mask
        mask = next((part for part in parts if part is not None), ())
        if mask == ():
            return 1
    return len(mask)
