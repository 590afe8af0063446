"""Attention to what is near."""

from __future__ import annotations

from torch import Tensor

from policysmith.ops.timeline import Timeline, both
from policysmith.parts.attention.heads import Count, Dim, Probability
from policysmith.parts.attention.self_attention import SelfAttention
from policysmith.registry import register

__all__ = ["WindowAttention"]


@register("window", slot="attention", causal=True)
class WindowAttention(SelfAttention):
    """Multi-head attention to keys less than `size` steps away, the token itself included (arXiv 2004.05150).

    In a causal timeline those are the last `size` steps, else as many on either side. Scores are computed densely: a
    window narrows what is seen, not the cost.
    """

    def __init__(
        self,
        dim: Dim,
        heads: Count = 8,
        size: Count = 32,
        head_dim: Count | None = None,
        qk_norm: bool = False,
        dropout: Probability = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__(dim, heads, heads, head_dim, qk_norm, dropout, bias)
        self.size = size

    def pattern(self, timeline: Timeline) -> tuple[Tensor | None, bool]:
        """What the timeline shows, within the window: (B|1, 1, T, S)."""
        return timeline.shared(("window", self.size), lambda: _near(self.size, timeline)), False


def _near(size: int, timeline: Timeline) -> Tensor | None:
    return both(timeline.visible(), timeline.distances() < size)
