"""Multi-head attention and its relatives, in which several query heads share one head of keys and values."""

from __future__ import annotations

from typing import Any

from policysmith.config.options import options_of
from policysmith.parts.attention.self_attention import SelfAttention
from policysmith.registry import register
from policysmith.types import Dim

__all__ = ["GroupedQueryAttention", "MultiHeadAttention", "MultiQueryAttention"]


@register("mha", slot="attention", causal=True, exclude=("kv_heads", "source_dim"))
class MultiHeadAttention(SelfAttention):
    """Multi-head attention (arXiv 1706.03762). A cache holds 2·dim numbers a token.

    `qk_norm` normalises queries and keys (arXiv 2302.05442, here by RMS with learned scales), `head_dim` frees the
    width of a head from dim / heads.
    """


@register("gqa", slot="attention", causal=True)
class GroupedQueryAttention(SelfAttention):
    """Grouped-query attention (arXiv 2305.13245): `kv_heads` heads of keys and values serve all query heads.

    A cache holds 2·kv_heads·head_dim numbers a token.
    """

    @options_of(SelfAttention, ("source_dim",), kv_heads=2)
    def __init__(self, dim: Dim, **options: Any) -> None:
        super().__init__(dim, **options)


@register("mqa", slot="attention", causal=True)
class MultiQueryAttention(SelfAttention):
    """Multi-query attention (arXiv 1911.02150): one head of keys and values serves all query heads.

    A cache holds 2·head_dim numbers a token.
    """

    @options_of(SelfAttention, ("kv_heads", "source_dim"))
    def __init__(self, dim: Dim, **options: Any) -> None:
        super().__init__(dim, kv_heads=1, **options)
