"""Attention of one sequence to another: how a decoder reads its source."""

from __future__ import annotations

from torch import Tensor

from policysmith.parts.attention.head_projections import HeadProjections
from policysmith.registry import register

__all__ = ["CrossAttention"]


@register("cross", slot="attention", causal=False, source=True)
class CrossAttention(HeadProjections):
    """Cross-attention of decoder blocks (arXiv 1706.03762): queries from one sequence, keys and values from another.

    Every query sees the whole source that `mask` allows. `kv_heads` shares keys as in gqa, `source_dim` is the width
    of the source's tokens where it is not `dim`. Positions of the two sequences are not comparable, so none enter here.
    """

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, T, F) and source (B, S, F') → (B, T, F); `mask` bool, broadcast to (B, H, T, S): True may be seen."""
        return self.read(self.queries(x), self.keys(source), self.values(source), mask)
