"""Attention by way of a few learned latents: cost grows with the sequence, not with its square.

B batch, T tokens, N latents, F model width.
"""

from __future__ import annotations

from torch import Tensor, nn

from policysmith.ops.timeline import Timeline, over_sequence, unpadded
from policysmith.parts.attention.heads import Count, Dim, HeadProjections, Probability
from policysmith.registry import register

__all__ = ["LatentQueryAttention"]


@register("latent_queries", slot="attention", causal=False)
class LatentQueryAttention(nn.Module):
    """Learned latents read the sequence, then the sequence reads them, so its length is restored.

    The induced set attention of the Set Transformer (arXiv 1810.00825, section 3.1) without its feed-forward parts.
    Latents see all tokens, so it has no causal form. Rotary positions turn the sequence's keys and queries, with the
    latents at step 0.
    """

    def __init__(
        self,
        dim: Dim,
        heads: Count = 8,
        n_latents: Count = 16,
        head_dim: Count | None = None,
        qk_norm: bool = False,
        dropout: Probability = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.latents = nn.Embedding(n_latents, dim)
        self.gather = HeadProjections(dim, heads, heads, head_dim, qk_norm, dropout, bias)
        self.spread = HeadProjections(dim, heads, heads, head_dim, qk_norm, dropout, bias)

    def forward(
        self, x: Tensor, timeline: Timeline | None = None, cache: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, None]:
        """x (B, T, F) → (B, T, F), None. Raises ValueError for a causal or windowed timeline, a cache, or alibi."""
        timeline = over_sequence(x) if timeline is None else timeline
        if cache is not None or not timeline.mixing:
            raise ValueError("latent_queries mix the whole sequence: they can be neither causal, windowed nor a memory")
        if timeline.position.bias(self.gather.heads, timeline) is not None:
            raise ValueError("latent_queries have no distance to tokens: take position: rope, learned or sinusoidal")
        mask = None if timeline.padding is None else unpadded(timeline.padding)
        z_BNF = self._gather(x, timeline, mask)
        q = timeline.position.rotate(self.spread.queries(x), timeline)
        return self.spread.read(q, self.spread.keys(z_BNF), self.spread.values(z_BNF)), None

    def initial_cache(self, batch: int, context: int) -> dict[str, Tensor]:
        """There is none: raises ValueError."""
        raise ValueError("latent_queries mix the whole sequence, so they can't be the memory of an episode")

    def _gather(self, x: Tensor, timeline: Timeline, mask: Tensor | None) -> Tensor:
        latents_BNF = self.latents.weight.expand(x.shape[0], -1, -1)
        k = timeline.position.rotate(self.gather.keys(x), timeline)
        return self.gather.read(self.gather.queries(latents_BNF), k, self.gather.values(x), mask)
