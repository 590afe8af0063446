"""Why a component failed: which of its inputs has another shape than it must. Looked at only after a failure."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from policysmith.graph.component import Component, Key

__all__ = ["Event", "shape_error"]

Event = tuple[int | None, ...]


def shape_error(component: Component, tensors: Sequence[Tensor], event: Event | None, extra: str = "…") -> str | None:
    """A sentence about the first input whose rows are no `event` (None stands for any size), or None.

    `extra` is how the dimensions before a row's are called.
    """
    if event is None:
        return None
    for key, x in zip(component.in_keys, tensors, strict=False):
        found = tuple(x.shape[x.dim() - len(event) :]) if x.dim() >= len(event) else None
        if found is None or any(want is not None and want != got for want, got in zip(event, found, strict=True)):
            expected = ", ".join([extra, *("any" if n is None else str(n) for n in event)])
            return f"{type(component).__name__} reads {_show(key)!r} as ({expected}), found {tuple(x.shape)}"
    return None


def _show(key: Key) -> str:
    return key if isinstance(key, str) else ".".join(key)
