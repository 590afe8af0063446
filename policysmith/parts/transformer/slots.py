"""What a block is made of, named: slot annotations for signatures, and parts built from whatever names them.

A slot argument is a registered name, a mapping, a `PartSpec`, or a class.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from torch import nn

from policysmith.ops.init import with_role
from policysmith.parts.norms import sequence_norm
from policysmith.registry import PartSpec, Slot, default_registry, part

__all__ = [
    "Attention", "Feedforward", "Norm", "PartLike", "Placement", "Position", "Residual", "build_part", "projection",
    "spec_of",
]  # fmt: skip

PartLike = str | Mapping[str, Any] | PartSpec | type[nn.Module]

Attention = Annotated[PartLike, Slot("attention")]
Feedforward = Annotated[PartLike, Slot("feedforward")]
Norm = Annotated[PartLike, Slot("norm")]
Position = Annotated[PartLike, Slot("position")]
Residual = Annotated[PartLike, Slot("residual")]
Placement = Literal["pre", "post", "sandwich"]


def spec_of(slot: str, value: PartLike) -> PartSpec | None:
    """The spec behind a slot argument; None for a class that is not registered."""
    if not inspect.isclass(value):
        return part(slot, value)
    names = [name for name in default_registry.names(slot) if default_registry.entry(slot, name).target is value]
    return part(slot, names[0]) if names else None


def build_part(slot: str, value: PartLike, dim: int) -> nn.Module:
    """A part of width `dim`; a class is called with `dim=` or `features=`, whichever it takes."""
    if slot == "norm" and (not inspect.isclass(value) or value.__module__.startswith("torch.")):
        return sequence_norm(value, dim)  # type: ignore[arg-type]
    if inspect.isclass(value):
        return _build_class(slot, value, dim)
    built: nn.Module = part(slot, value).build(dim=dim)
    return built


def projection(features: int, dim: int) -> nn.Module:
    """A linear map of tokens to the width of a stack, where it is not theirs already."""
    return nn.Identity() if features == dim else with_role(nn.Linear(features, dim), "projection")


def _build_class(slot: str, kind: type[nn.Module], dim: int) -> nn.Module:
    names = inspect.signature(kind).parameters
    name = next((name for name in ("dim", "features") if name in names), None)
    if name is None:
        raise ValueError(f"{slot}: {kind.__qualname__}({', '.join(names)}) takes neither dim nor features")
    return kind(**{name: dim})
