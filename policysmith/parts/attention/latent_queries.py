"""Attention by way of a few learned latents: cost grows with the sequence, not with its square.

B batch, T tokens, N latents, F model width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from policysmith.config.options import options_of
from policysmith.ops.timeline import Timeline, over_sequence, unpadded
from policysmith.parts.attention.head_projections import HeadProjections
from policysmith.registry import register
from policysmith.types import Count, Dim

__all__ = ["LatentQueryAttention"]


@register("latent_queries", slot="attention", causal=False)
class LatentQueryAttention(nn.Module):
    """Learned latents read the sequence, then the sequence reads them, so its length is restored.

    The induced set attention of the Set Transformer (arXiv 1810.00825, section 3.1) without its feed-forward parts.
    Latents see all tokens, so it has no causal form. Rotary positions turn the sequence's keys and queries, with the
    latents at step 0.

    Args:
        n_latents: How many learned latents read the sequence.
    """

    @options_of(HeadProjections, ("kv_heads", "source_dim"))
    def __init__(self, dim: Dim, *, n_latents: Count = 16, **options: Any) -> None:
        super().__init__()
        self.latents = nn.Embedding(n_latents, dim)
        self.gather, self.spread = HeadProjections(dim, **options), HeadProjections(dim, **options)

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
