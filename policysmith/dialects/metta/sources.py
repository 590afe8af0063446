"""Sources of legacy components become keys; what is cut out of a source becomes a component that cuts.

In: a `Layer`. Out: `Cut`, the keys it reads and the slices before it. Only merges understood slices.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from policysmith.dialects.metta.agent import Layer

__all__ = ["Cut", "axis_of", "read_sources"]


@dataclass(frozen=True)
class Cut:
    """The keys that a component reads, in order, and the components that cut them out of others."""

    keys: list[str]
    slices: dict[str, dict[str, Any]]


def axis_of(dim: int) -> int:
    """A dimension that counts the batch as 0 → the axis of an event; negative ones count from the end in both."""
    return dim - 1 if dim > 0 else dim


def read_sources(layer: Layer, taken: Container[str]) -> Cut:
    """The keys of a component, each source that is cut through a `slice` of its own; ValueError for an empty slice."""
    keys: list[str] = []
    slices: dict[str, dict[str, Any]] = {}
    for source in layer.sources:
        if source.start is None or source.stop is None:
            keys.append(source.name)
            continue
        if not 0 <= source.start < source.stop:
            raise ValueError(f"cuts {source.start} to {source.stop} out of {source.name!r}: start must be below end")
        name = _free(f"{layer.name}_{source.name.strip('_')}_{source.start}_{source.stop}", {*keys}, taken)
        bounds = {"start": source.start, "stop": source.stop, "axis": axis_of(source.dim or 1)}
        slices[name] = {"type": "slice", "in_keys": source.name, **bounds}
        keys.append(name)
    return Cut(keys, slices)


def _free(name: str, *taken: Container[str]) -> str:
    while any(name in names for names in taken):
        name += "_"
    return name
