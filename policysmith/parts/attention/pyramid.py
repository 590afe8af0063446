"""Attention whose heads look near and far at different scales."""

from __future__ import annotations

import torch
from torch import Tensor

from policysmith.ops.leaf_function import leaf_function
from policysmith.ops.timeline import Timeline, both
from policysmith.parts.attention.self_attention import SelfAttention
from policysmith.registry import register

__all__ = ["PyramidAttention"]

LEVELS = 5  # of the transformer factory that this type stems from, whose weights are to be imported


@register("pyramid", slot="attention", causal=True, exclude=("kv_heads", "source_dim"))
class PyramidAttention(SelfAttention):
    """Multi-head attention in which head h sees keys at distances d ≤ 2^l, or that 2^(l+1) divides.

    l = min(h, 4) is its level. The pattern narrows what the timeline shows, so it is causal where that is. Scores are
    computed densely: it shapes what heads learn, not the cost.
    """

    def pattern(self, timeline: Timeline) -> tuple[Tensor | None, bool]:
        """What the timeline shows, on each head's scale: (B|1, H, T, S)."""
        return timeline.shared(
            ("pyramid", self.heads), lambda: both(timeline.visible(), _scales(timeline.distances(), self.heads))
        ), False


@leaf_function
def _scales(distances: Tensor, heads: int) -> Tensor:
    levels_H = torch.arange(heads, device=distances.device).clamp_max(LEVELS - 1)
    reach_H11 = 2 ** levels_H[:, None, None]
    return (distances <= reach_H11) | (distances % (2 * reach_H11) == 0)
