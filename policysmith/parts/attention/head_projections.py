"""What attention types share: tokens projected to the queries, keys and values of heads, and the heads joined again.

B batch, T tokens, H query heads, G key heads (each serves H/G consecutive query heads), D width of a head, F of the
model.
"""

from __future__ import annotations

from torch import Tensor, nn

from policysmith.ops.attend import attend
from policysmith.ops.init import with_role
from policysmith.types import Count, Dim, Dropout

__all__ = ["HeadProjections", "head_width", "projection"]


class HeadProjections(nn.Module):
    """The projections `query`, `key`, `value` and `out`, with RMS norms of each head's queries and keys (`qk_norm`).

    Weights stay separate, `key` and `value` of G·D rows, heads one after the other. Raises ValueError where `dim` is
    not a multiple of `heads` (unless `head_dim` is given) or `heads` none of `kv_heads`.

    Args:
        heads: How many heads read.
        kv_heads: How many heads of keys and values there are; as many as heads by default.
        head_dim: The width of a head; dim / heads by default.
        qk_norm: Whether queries and keys are normalised in each head.
        dropout: The share of attention weights that training sets to 0.
        bias: Whether the projections add a bias.
        source_dim: The width of the tokens that are read, where it is not dim.
    """

    def __init__(
        self,
        dim: Dim,
        heads: Count = 8,
        kv_heads: Count | None = None,
        head_dim: Count | None = None,
        qk_norm: bool = False,
        dropout: Dropout = 0.0,
        bias: bool = False,
        source_dim: Count | None = None,
    ) -> None:
        super().__init__()
        kv_heads, source_dim = kv_heads or heads, source_dim or dim
        if heads % kv_heads:
            raise ValueError(f"heads={heads} is not a multiple of kv_heads={kv_heads}")
        self.heads, self.kv_heads, self.dropout = heads, kv_heads, dropout
        self.head_dim = head_width(dim, heads, head_dim)
        self.query = projection(dim, heads * self.head_dim, bias)
        self.key = projection(source_dim, kv_heads * self.head_dim, bias)
        self.value = projection(source_dim, kv_heads * self.head_dim, bias)
        self.out = projection(heads * self.head_dim, dim, bias)
        self.query_norm = nn.RMSNorm(self.head_dim, 1e-6) if qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(self.head_dim, 1e-6) if qk_norm else nn.Identity()

    def queries(self, x: Tensor, single: bool = False) -> Tensor:
        """(B, T, F), or (B, F) where each row is a `single` token → (B, T, H, D)."""
        return self.query_norm(self._split(self.query(x), self.heads, single))

    def keys(self, x: Tensor, single: bool = False) -> Tensor:
        """(B, T, F), or (B, F) where each row is a `single` token → (B, T, G, D)."""
        return self.key_norm(self._split(self.key(x), self.kv_heads, single))

    def values(self, x: Tensor, single: bool = False) -> Tensor:
        """(B, T, F), or (B, F) where each row is a `single` token → (B, T, G, D)."""
        return self._split(self.value(x), self.kv_heads, single)

    def _split(self, projected: Tensor, heads: int, single: bool) -> Tensor:
        return projected.unflatten(-1, (1, heads, self.head_dim) if single else (heads, self.head_dim))

    def read(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        causal: bool = False,
        single: bool = False,
    ) -> Tensor:
        """Attend (B, T, H, D), drop weights in training, join the heads → (B, T, F), or (B, F) of `single` tokens."""
        dropout = self.dropout if self.training else 0.0
        y_BTHD = attend(q, k, v, mask, bias, causal, dropout)
        return self.out(y_BTHD.flatten(1 if single else -2))


def projection(inputs: int, outputs: int, bias: bool = False) -> nn.Linear:
    """A linear layer with the role `projection`."""
    return with_role(nn.Linear(inputs, outputs, bias), "projection")


def head_width(dim: int, heads: int, head_dim: int | None = None) -> int:
    """`head_dim`, or an equal share of `dim`; raises ValueError where there is none."""
    if head_dim is None and dim % heads:
        raise ValueError(f"dim={dim} is not a multiple of heads={heads}")
    return head_dim or dim // heads
