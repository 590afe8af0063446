"""Attention of one sequence to another: how a decoder reads its source."""

from __future__ import annotations

from torch import Tensor

from policysmith.parts.attention.heads import Count, Dim, HeadProjections, Probability
from policysmith.registry import register

__all__ = ["CrossAttention"]


@register("cross", slot="attention", causal=False, source=True)
class CrossAttention(HeadProjections):
    """Cross-attention of decoder blocks (arXiv 1706.03762): queries from one sequence, keys and values from another.

    Every query sees the whole source that `mask` allows. `kv_heads` shares keys as in gqa, `source_dim` is the width
    of the source's tokens where it is not `dim`. Positions of the two sequences are not comparable, so none enter here.
    """

    def __init__(
        self,
        dim: Dim,
        heads: Count = 8,
        kv_heads: Count | None = None,
        head_dim: Count | None = None,
        qk_norm: bool = False,
        dropout: Probability = 0.0,
        bias: bool = False,
        source_dim: Count | None = None,
    ) -> None:
        super().__init__(dim, heads, kv_heads, head_dim, qk_norm, dropout, bias, source_dim)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, T, F) and source (B, S, F') → (B, T, F); `mask` bool, broadcast to (B, H, T, S): True may be seen."""
        return self.read(self.queries(x), self.keys(source), self.values(source), mask)
