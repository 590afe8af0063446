"""What a position is: three places where the steps of the tokens may enter a network.

In: tokens, queries or keys, and a `Timeline`. Out: the same with their positions; or a bias of the scores.
B batch, T time, H heads, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from policysmith.ops.timeline import Timeline
from policysmith.registry import register

__all__ = ["NoPosition", "Position"]


class Position(nn.Module):
    """Changes nothing; a type overrides the one method by which it acts. `length` is how many steps it knows."""

    length: int | None = None

    def embed(self, x_BTD: Tensor, positions: Tensor) -> Tensor:
        """Tokens (B, T, D) and their steps (B|1, T) → tokens with their positions."""
        return x_BTD

    def rotate(self, x_BTHD: Tensor, timeline: Timeline, width: int | None = None) -> Tensor:
        """Queries or new keys (B, T, H, D) → the same, turned by their steps `timeline.positions`.

        `width` is D, from callers that know it: a traced tensor can't say.
        """
        return x_BTHD

    def bias(self, heads: int, timeline: Timeline) -> Tensor | None:
        """What is added to the scores (B|1, H, T, S), or None."""
        return None


@register("none", slot="position")
class NoPosition(Position):
    """No positions: attention sees its keys as a set, and memory only what tokens say of their time."""
