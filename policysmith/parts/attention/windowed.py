"""Attention to what is near."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from policysmith.config.options import options_of
from policysmith.ops.timeline import Timeline, both
from policysmith.parts.attention.self_attention import SelfAttention
from policysmith.registry import register
from policysmith.types import Count, Dim

__all__ = ["WindowAttention"]


@register("window", slot="attention", causal=True)
class WindowAttention(SelfAttention):
    """Multi-head attention to keys less than `size` steps away, the token itself included (arXiv 2004.05150).

    In a causal timeline those are the last `size` steps, else as many on either side. Scores are computed densely: a
    window narrows what is seen, not the cost.

    Args:
        size: How many steps the window holds, the token itself included.
    """

    @options_of(SelfAttention, ("kv_heads", "source_dim"))
    def __init__(self, dim: Dim, *, size: Count = 32, **options: Any) -> None:
        super().__init__(dim, **options)
        self.size = size

    def pattern(self, timeline: Timeline) -> tuple[Tensor | None, bool]:
        """What the timeline shows, within the window: (B|1, 1, T, S)."""
        return timeline.shared(("window", self.size), lambda: _near(self.size, timeline)), False


def _near(size: int, timeline: Timeline) -> Tensor | None:
    return both(timeline.visible(), timeline.distances() < size)
