"""The residual slot: a module of (x, y) → x', where y (*, D) is what a branch made of the stream x (*, D)."""

from __future__ import annotations

from typing import Annotated

from policysmith.registry import PartSpec, Slot

__all__ = ["Residual"]

Residual = Annotated[PartSpec | str, Slot("residual")]
