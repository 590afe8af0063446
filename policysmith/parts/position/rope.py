"""Rotary positions: the usual choice, which needs no parameters and no greatest length."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le
from torch import Tensor

from policysmith.ops.rotary import rotary_turns, rotate
from policysmith.ops.timeline import Timeline
from policysmith.parts.position.slot import Position
from policysmith.registry import register

__all__ = ["RotaryPosition"]

Fraction = Annotated[float, Gt(0), Le(1)]


@register("rope", slot="position")
class RotaryPosition(Position):
    """Queries and keys turned by angles that grow with their step (RoFormer, arXiv 2104.09864, section 3.2).

    `fraction` of each head's dimensions is turned, rounded down to whole pairs, and the rest carries no position
    (as GPT-NeoX does); `base` sets the slowest rate. Pairs are (r, R + r), the layout of Llama and GPT-NeoX.

    Args:
        fraction: The share of a head's width that is turned.
        base: The ratio of the slowest to the fastest rotation.
    """

    def __init__(self, fraction: Fraction = 1.0, base: Annotated[float, Gt(1)] = 10_000.0) -> None:
        super().__init__()
        self.fraction, self.base = fraction, base

    def rotate(self, x_BTHD: Tensor, timeline: Timeline, width: int | None = None) -> Tensor:
        """(B, T, H, D) → the same; raises ValueError where not even one pair would be turned."""
        width = x_BTHD.shape[-1] if width is None else width
        pairs = int(width * self.fraction) // 2
        if not pairs:
            raise ValueError(
                f"rope with fraction={self.fraction} turns no pair of a head of {width} dimensions: "
                "take wider heads or a greater fraction"
            )
        turns = timeline.shared(
            ("rope", pairs, self.base), lambda: rotary_turns(timeline.positions, pairs, self.base, x_BTHD.dtype)
        )
        return rotate(x_BTHD, turns)
