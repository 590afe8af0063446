"""MergeModule: several inputs into one. `*` any leading batch dimensions.

In: features under two keys or more, each cut to a slice if asked. Out: one tensor under `merged`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from policysmith.dialects.metta.modules.layers import Keys, PartModule, build_part
from policysmith.errors import WiringError, did_you_mean
from policysmith.graph.component import Key, as_key

__all__ = ["MergeModule"]

MERGES = {"concat": "concat", "add": "sum", "subtract": "difference", "mean": "mean"}
"""How to merge → the registered part that does it."""

Bounds = tuple[int | None, int | None]


class MergeModule(PartModule):
    """Inputs (*, F_i) → one: `concat` (*, Σ F_i), or for inputs alike `add`, `subtract` (of two) and `mean` (*, F).

    `slices` cuts features before the merge: key → (start, stop), for the keys that are not taken whole; or a list with
    an entry for each key. In a file these are the parts `concat`, `sum`, `difference` and `mean`.
    """

    def __init__(
        self,
        in_keys: Sequence[Key],
        merge_type: str = "concat",
        slices: Mapping[Any, Sequence[int | None]] | Sequence[Sequence[int | None] | None] | None = None,
        out_key: Key = "merged",
        out_keys: Keys = None,
    ) -> None:
        if merge_type not in MERGES:
            hint = did_you_mean(merge_type, MERGES) or f"; there are: {', '.join(MERGES)}"
            raise WiringError(f"unknown merge_type {merge_type!r}{hint}")
        if isinstance(in_keys, str) or len(in_keys) < 2 or (merge_type == "subtract" and len(in_keys) != 2):
            count = "two in_keys" if merge_type == "subtract" else "a list of two in_keys or more"
            raise WiringError(f"{merge_type} takes {count}, found {in_keys!r}")
        part = build_part(MERGES[merge_type], context={"event_shapes": ((1,),) * len(in_keys)})
        super().__init__(part, in_keys, out_keys or [out_key])
        self.merge_type = merge_type
        self.slices = _bounds(slices, self.in_keys)

    def compute(self, *tensors: Tensor, **aux: Any) -> Tensor:
        """Cut, then merge."""
        merged: Tensor = self.module(*(_cut(x, bounds) for x, bounds in zip(tensors, self.slices, strict=True)))
        return merged

    def shape_error(self, tensors: Sequence[Tensor]) -> str | None:
        """The shapes that can't be merged."""
        shapes = ", ".join(f"{key!r} {tuple(x.shape)}" for key, x in zip(self.in_keys, tensors, strict=False))
        cut = f" with slices {list(self.slices)}" if any(self.slices) else ""
        return f"{self.merge_type} can't merge {shapes}{cut}"


def _cut(x: Tensor, bounds: Bounds | None) -> Tensor:
    """Features start … stop. Ends that lie beyond the last feature raise: Python's slices would give fewer."""
    if bounds is None:
        return x
    start, stop = bounds
    if stop is None or stop < 0 or (start or 0) < 0:
        return x[..., start:stop]
    return x.narrow(-1, start or 0, stop - (start or 0))


def _bounds(given: Any, keys: Sequence[Key]) -> tuple[Bounds | None, ...]:
    """One entry for each key; None takes it whole."""
    if given is None:
        return (None,) * len(keys)
    if isinstance(given, Mapping):
        named = {as_key(key): bounds for key, bounds in given.items()}
        for key in named:
            if key not in keys:
                raise WiringError(f"slices: {key!r} is none of the in_keys {', '.join(map(repr, keys))}")
        given = [named.get(key) for key in keys]
    if len(given) != len(keys):
        raise WiringError(f"slices: {len(given)} entries for {len(keys)} in_keys")
    return tuple(None if bounds is None else _checked(bounds) for bounds in given)


def _checked(bounds: Any) -> Bounds:
    whole = isinstance(bounds, list | tuple) and all(b is None or type(b) is int for b in bounds)
    if not whole or len(bounds) != 2:
        raise WiringError(f"slices: expected (start, stop), found {bounds!r}")
    return bounds[0], bounds[1]
