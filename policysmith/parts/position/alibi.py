"""Attention with linear biases: nearer keys score higher, at a rate of each head's own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from policysmith.ops.leaf_function import leaf_function
from policysmith.ops.timeline import Timeline
from policysmith.parts.position.slot import Position
from policysmith.registry import register

__all__ = ["AlibiPosition", "alibi_slopes"]


@register("alibi", slot="position")
class AlibiPosition(Position):
    """Scores fall linearly with the distance of the key (ALiBi, arXiv 2108.12409); in both directions if not causal."""

    def bias(self, heads: int, timeline: Timeline) -> Tensor:
        """→ -slope · |distance|, (B|1, H, T, S)."""
        return timeline.shared(("alibi", heads), lambda: _bias(timeline.distances(), heads))


@leaf_function
def _bias(distances: Tensor, heads: int) -> Tensor:
    slopes_H = torch.tensor(alibi_slopes(heads), device=distances.device)
    return distances * -slopes_H[:, None, None]


def alibi_slopes(heads: int) -> list[float]:
    """2^(-8/n), 2^(-16/n), … for n heads, n a power of two; else those of the power below, then of the next, by twos.

    The second case is not in the paper; its authors' implementation does it so.
    """
    below = 2 ** math.floor(math.log2(heads))
    between = [2 ** (-4 * i / below) for i in range(1, 2 * (heads - below), 2)]
    return [2 ** (-8 * i / below) for i in range(1, below + 1)] + between
