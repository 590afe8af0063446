"""Options that every algorithm has: who is told of its iterations, and how often it is saved."""

from __future__ import annotations

from typing import Annotated

from policysmith.registry import PartSpec, Slot

__all__ = ["CHECKPOINT_MINUTES", "Callbacks", "Loggers"]

Loggers = list[Annotated[PartSpec | str, Slot("logger")]]
Callbacks = list[Annotated[PartSpec | str, Slot("callback")]]
CHECKPOINT_MINUTES = 1.0  # what is lost with a machine that stops: a minute's learning, for a hundredth of the time
