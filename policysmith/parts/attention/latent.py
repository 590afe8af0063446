"""Multi-head latent attention: keys and values of all heads from one small latent, which is all a cache holds.

B batch, T time of this call, S keys seen, W slots of a cache, H heads; widths: N a key's content, R its rotary part,
V a value, C the latent, F the model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policysmith.ops.attend import attend
from policysmith.ops.timeline import Timeline, over_sequence
from policysmith.parts.attention.head_projections import head_width, projection
from policysmith.registry import register
from policysmith.types import Count, Dim, Dropout

__all__ = ["MultiHeadLatentAttention"]


@register("mla", slot="attention", causal=True)
class MultiHeadLatentAttention(nn.Module):
    """Multi-head latent attention of DeepSeek-V2 (arXiv 2405.04434, section 2.1 and appendix C).

    A token is compressed to a latent of `kv_rank` numbers, from which each head expands its key content (`nope_dim`)
    and value (`value_dim`); positions go by one key of `rope_dim` that all heads share. A cache holds
    kv_rank + rope_dim numbers a token. Where positions are not rotary, the shared key is plain content.

    By default kv_rank is dim / 4, rope_dim half a head's width, nope_dim and value_dim that width, and queries are
    projected directly (`q_rank` compresses them too). One step with a cache multiplies queries into the latent space
    and never expands keys or values; results are the same.

    Args:
        heads: How many heads read.
        kv_rank: The width of the latent that keys and values are expanded from; dim / 4 by default.
        q_rank: The width of the latent that queries are expanded from; null projects them directly.
        rope_dim: The width of the key that carries positions; half a head by default.
        nope_dim: The width of a head's content key; dim / heads by default.
        value_dim: The width of a head's value; dim / heads by default.
        dropout: The share of attention weights that training sets to 0.
        bias: Whether the projections of the stream add a bias.
    """

    def __init__(
        self,
        dim: Dim,
        heads: Count = 8,
        kv_rank: Count | None = None,
        q_rank: Count | None = None,
        rope_dim: Count | None = None,
        nope_dim: Count | None = None,
        value_dim: Count | None = None,
        dropout: Dropout = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.kv_rank = kv_rank or max(dim // 4, 1)
        self.nope_dim = nope_dim or head_width(dim, heads)
        self.value_dim = value_dim or head_width(dim, heads)
        self.rope_dim = rope_dim or max(head_width(dim, heads) // 4, 1) * 2
        self.query = _QueryProjection(dim, q_rank, heads * (self.nope_dim + self.rope_dim), bias)
        self.latent = projection(dim, self.kv_rank + self.rope_dim, bias)
        self.latent_norm = nn.RMSNorm(self.kv_rank, 1e-6)
        # Without biases, as in the paper: expansion must be a plain product to be multiplied into the queries.
        self.key = projection(self.kv_rank, heads * self.nope_dim)
        self.value = projection(self.kv_rank, heads * self.value_dim)
        self.out = projection(heads * self.value_dim, dim, bias)

    def forward(
        self, x: Tensor, timeline: Timeline | None = None, cache: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """x (B, T, F) → (B, T, F) and the next cache (None without one).

        Without a timeline every token reads the whole sequence.
        """
        timeline = over_sequence(x) if timeline is None else timeline
        latent_BTC, shared_BTR = self.latent(x).split((self.kv_rank, self.rope_dim), -1)
        latent_BTC = self.latent_norm(latent_BTC)
        shared_BTR = timeline.position.rotate(shared_BTR.unsqueeze(2), timeline, self.rope_dim).squeeze(2)
        q_BTHD = self.query(x).unflatten(-1, (self.heads, -1))
        content_BTHN, turned_BTHR = q_BTHD.split((self.nope_dim, self.rope_dim), -1)
        turned_BTHR = timeline.position.rotate(turned_BTHR, timeline, self.rope_dim)
        read = self._expanded if not timeline.steps_once else self._absorbed
        seen, cache = timeline.remember_all(cache, {"latent": latent_BTC, "shared_key": shared_BTR})
        return read(content_BTHN, turned_BTHR, seen["latent"], seen["shared_key"], timeline), cache

    def initial_cache(self, batch: int, context: int) -> dict[str, Tensor]:
        """An empty cache of `context` slots on the module's device, in its dtype."""
        zeros = self.latent.weight.new_zeros
        return {"latent": zeros(batch, context, self.kv_rank), "shared_key": zeros(batch, context, self.rope_dim)}

    def _expanded(
        self, content_BTHN: Tensor, turned_BTHR: Tensor, latent_BSC: Tensor, shared_BSR: Tensor, timeline: Timeline
    ) -> Tensor:
        """Each head's own keys and values."""
        k_BSHN = self.key(latent_BSC).unflatten(-1, (self.heads, -1))
        k = torch.cat((k_BSHN, shared_BSR.unsqueeze(2).expand(-1, -1, self.heads, -1)), -1)
        v = self.value(latent_BSC).unflatten(-1, (self.heads, -1))
        y_BTHV = self._attend(torch.cat((content_BTHN, turned_BTHR), -1), k, v, timeline)
        return self.out(y_BTHV.flatten(-2))

    def _absorbed(
        self, content_BTHN: Tensor, turned_BTHR: Tensor, latent_BSC: Tensor, shared_BSR: Tensor, timeline: Timeline
    ) -> Tensor:
        """One head of keys and values for all: (q W_k) c for q (W_k c), and W_v (Σ a c) for Σ a (W_v c)."""
        key_HNC = self.key.weight.unflatten(0, (self.heads, -1))
        value_HVC = self.value.weight.unflatten(0, (self.heads, -1))
        q_BTHC = torch.einsum("bthn,hnc->bthc", content_BTHN, key_HNC)
        k = torch.cat((latent_BSC, shared_BSR), -1).unsqueeze(2)
        # The keys serve as values too: kernels want one width, and the shared key's part of the result is cut off.
        y_BTHC = self._attend(torch.cat((q_BTHC, turned_BTHR), -1), k, k, timeline)[..., : self.kv_rank]
        return self.out(torch.einsum("bthc,hvc->bthv", y_BTHC, value_HVC).flatten(-2))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, timeline: Timeline) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        mask, bias = timeline.as_bias(timeline.mask, timeline.position.bias(self.heads, timeline))
        scale = (self.nope_dim + self.rope_dim) ** -0.5
        return attend(q, k, v, mask, bias, timeline.causal, dropout, scale)


class _QueryProjection(nn.Module):
    """Queries from tokens, through a normed latent of `rank` numbers where one is given."""

    def __init__(self, dim: int, rank: int | None, outputs: int, bias: bool) -> None:
        super().__init__()
        self.down = projection(dim, rank, bias) if rank else nn.Identity()
        self.norm = nn.RMSNorm(rank, 1e-6) if rank else nn.Identity()
        self.up = projection(rank or dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, F) → (B, T, H·(N + R))."""
        return self.up(self.norm(self.down(x)))
