"""Numbers that change while training goes on: functions of progress in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from policysmith.registry import PartSpec, Slot, part, register

__all__ = ["Schedule", "schedule"]

Schedule = Annotated[PartSpec | float, Slot("schedule")]


@register("constant", slot="schedule")
def constant(value: float) -> Callable[[float], float]:
    """The same number throughout; what a bare number means.

    Args:
        value: The number.
    """
    return lambda progress: value


@register("linear", slot="schedule")
def linear(start: float, end: float = 0.0) -> Callable[[float], float]:
    """From `start` to `end` in a straight line.

    Args:
        start: The number at the beginning.
        end: The number at the end.
    """
    return lambda progress: start + (end - start) * progress


def schedule(value: Schedule) -> Callable[[float], float]:
    """A number or spec → a function of progress."""
    return part("schedule", value).build()
