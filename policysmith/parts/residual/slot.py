"""The residual slot: a module of (x, y) → x', where y (*, D) is what a branch made of the stream x (*, D)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from policysmith.registry import Infer, PartSpec, Slot

__all__ = ["Dim", "Residual", "Scale"]

Residual = Annotated[PartSpec | str, Slot("residual")]
Dim = Annotated[int, Infer("dim")]
Scale = Annotated[float, Gt(0)]
