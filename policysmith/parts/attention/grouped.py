"""Multi-head attention and its relatives, in which several query heads share one head of keys and values."""

from __future__ import annotations

from policysmith.parts.attention.heads import Count, Dim, Probability
from policysmith.parts.attention.self_attention import SelfAttention
from policysmith.registry import register

__all__ = ["GroupedQueryAttention", "MultiHeadAttention", "MultiQueryAttention"]


@register("mha", slot="attention", causal=True)
class MultiHeadAttention(SelfAttention):
    """Multi-head attention (arXiv 1706.03762). A cache holds 2·dim numbers a token.

    `qk_norm` normalises queries and keys (arXiv 2302.05442, here by RMS with learned scales), `head_dim` frees the
    width of a head from dim / heads.
    """

    def __init__(
        self,
        dim: Dim,
        heads: Count = 8,
        head_dim: Count | None = None,
        qk_norm: bool = False,
        dropout: Probability = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__(dim, heads, heads, head_dim, qk_norm, dropout, bias)


@register("gqa", slot="attention", causal=True)
class GroupedQueryAttention(SelfAttention):
    """Grouped-query attention (arXiv 2305.13245): `kv_heads` heads of keys and values serve all query heads.

    A cache holds 2·kv_heads·head_dim numbers a token.
    """

    def __init__(
        self,
        dim: Dim,
        heads: Count = 8,
        kv_heads: Count = 2,
        head_dim: Count | None = None,
        qk_norm: bool = False,
        dropout: Probability = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__(dim, heads, kv_heads, head_dim, qk_norm, dropout, bias)


@register("mqa", slot="attention", causal=True)
class MultiQueryAttention(SelfAttention):
    """Multi-query attention (arXiv 1911.02150): one head of keys and values serves all query heads.

    A cache holds 2·head_dim numbers a token.
    """

    def __init__(
        self,
        dim: Dim,
        heads: Count = 8,
        head_dim: Count | None = None,
        qk_norm: bool = False,
        dropout: Probability = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__(dim, heads, 1, head_dim, qk_norm, dropout, bias)
