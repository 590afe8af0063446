"""Self-attention over a timeline: what its types share but for which keys a head may see.

B batch, T time of this call, S keys seen, W slots of a cache, G key heads, D width of a head, F model width.
"""

from __future__ import annotations

from torch import Tensor

from policysmith.ops.timeline import Timeline, over_sequence
from policysmith.parts.attention.head_projections import HeadProjections

__all__ = ["SelfAttention"]


class SelfAttention(HeadProjections):
    """Each token reads the tokens that its timeline shows; a type narrows that by overriding `pattern`.

    The cache holds `key` and `value`, (B, W, G, D), keys turned by their own positions.
    """

    def forward(
        self, x: Tensor, timeline: Timeline | None = None, cache: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """x (B, T, F) → (B, T, F) and the next cache (None without one).

        Without a timeline every token reads the whole sequence.
        """
        timeline = over_sequence(x) if timeline is None else timeline
        position, single = timeline.position, timeline.steps_once
        x = x.squeeze(1) if single else x  # (B, F): torch multiplies two axes with fewer detours than three
        q, k, v = self.queries(x, single), self.keys(x, single), self.values(x, single)
        q, k = (position.rotate(heads, timeline, self.head_dim) for heads in (q, k))
        mask, causal = self.pattern(timeline)
        mask, bias = timeline.as_bias(mask, position.bias(self.heads, timeline))
        seen, cache = timeline.remember_all(cache, {"key": k, "value": v})
        y = self.read(q, seen["key"], seen["value"], mask, bias, causal, single)
        return y.unsqueeze(1) if single else y, cache

    def pattern(self, timeline: Timeline) -> tuple[Tensor | None, bool]:
        """The mask (B|1, H|1, T|1, S), and whether the lower triangle is meant without one."""
        return timeline.mask, timeline.causal

    def initial_cache(self, batch: int, context: int) -> dict[str, Tensor]:
        """An empty cache of `context` slots on the module's device, in its dtype."""
        shape = (batch, context, self.kv_heads, self.head_dim)
        return {"key": self.key.weight.new_zeros(shape), "value": self.value.weight.new_zeros(shape)}
