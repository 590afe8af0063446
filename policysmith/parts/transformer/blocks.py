"""Transformer blocks assembled from slots. B batch, T time of this call, S source tokens, D width.

In: a stream (B, T, D) and the timeline that says what may be seen. Out: the next stream, and attention's next cache.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from policysmith.config.options import options_of
from policysmith.ops.timeline import Timeline
from policysmith.parts.transformer.branch import Branch
from policysmith.parts.transformer.slots import (
    Attention,
    Feedforward,
    Norm,
    PartLike,
    Placement,
    Residual,
    build_part,
    spec_of,
)  # fmt: skip
from policysmith.types import Dropout, Width

__all__ = ["DecoderBlock", "EncoderBlock"]

Cache = dict[str, Tensor] | None
Aux = dict[str, Tensor] | None


class EncoderBlock(nn.Module):
    """Self-attention, then a feed-forward network, each a branch of the stream.

    Every slot takes a registered name, a mapping, a `PartSpec`, or a class that is built with `dim=` or `features=`.
    `dropout` falls on the branches; attention and feed-forward have dropouts of their own. `final_norm` normalises the
    stream behind the block.

    Args:
        dim: The width of the stream.
        attention: How tokens read each other.
        feedforward: What each token passes through behind the attention.
        norm: The normalisation of both branches.
        residual: How a branch rejoins the stream.
        placement: Where a branch is normalised: before it, behind it, or on both sides.
        dropout: The share of a branch's values that training sets to 0.
        final_norm: Whether the stream is normalised once more behind the block.
    """

    def __init__(
        self,
        dim: Width,
        attention: Attention = "mha",
        feedforward: Feedforward = "mlp",
        norm: Norm = "layer",
        residual: Residual = "add",
        placement: Placement = "pre",
        dropout: Dropout = 0.0,
        final_norm: bool = False,
    ) -> None:
        super().__init__()
        around = (dim, norm, residual, placement, dropout)
        self.attention, self.attention_branch = _attention(attention, dim), Branch(*around)
        self.feedforward, self.feedforward_branch = build_part("feedforward", feedforward, dim), Branch(*around)
        self.reports = _takes_aux(self.feedforward)
        self.final_norm = build_part("norm", norm, dim) if final_norm else nn.Identity()

    def forward(self, x: Tensor, timeline: Timeline, cache: Cache = None, aux: Aux = None) -> tuple[Tensor, Cache]:
        """x (B, T, D) → (B, T, D) and the next cache; `aux` gathers auxiliary losses."""
        y, cache = self.attention(self.attention_branch.enter(x), timeline, cache)
        x = self.attention_branch.leave(x, y)
        y = self.feedforward_branch.enter(x)
        y = self.feedforward(y, aux=aux) if self.reports else self.feedforward(y)
        return self.final_norm(self.feedforward_branch.leave(x, y)), cache

    def initial_cache(self, batch: int, context: int) -> dict[str, Tensor]:
        """The attention's empty cache of `context` steps."""
        empty: dict[str, Tensor] = self.attention.initial_cache(batch, context)  # type: ignore[operator]
        return empty


class DecoderBlock(nn.Module):
    """Self-attention, attention to a source, then a feed-forward network, each a branch of the stream.

    Slots and options as in `EncoderBlock`; `cross` is by default cross-attention with the heads of `attention`.
    """

    @options_of(EncoderBlock)
    def __init__(self, dim: Width, *, cross: Attention | None = None, **options: Any) -> None:
        super().__init__()
        attention, feedforward, final_norm = (options.pop(n) for n in ("attention", "feedforward", "final_norm"))
        cross = _cross_like(attention) if cross is None else cross
        self.attention, self.attention_branch = _attention(attention, dim), Branch(dim, **options)
        self.cross, self.cross_branch = _attention(cross, dim, source=True), Branch(dim, **options)
        self.feedforward, self.feedforward_branch = build_part("feedforward", feedforward, dim), Branch(dim, **options)
        self.reports = _takes_aux(self.feedforward)
        self.final_norm = build_part("norm", options["norm"], dim) if final_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        source: Tensor,
        timeline: Timeline,
        cache: Cache = None,
        source_mask: Tensor | None = None,
        aux: Aux = None,
    ) -> tuple[Tensor, Cache]:
        """x (B, T, D), source (B, S, D) → (B, T, D) and the self-attention's next cache.

        `source_mask` bool (B|1, 1, T|1, S): True where a token of the source may be seen.
        """
        y, cache = self.attention(self.attention_branch.enter(x), timeline, cache)
        x = self.attention_branch.leave(x, y)
        y = self.cross(self.cross_branch.enter(x), source, source_mask)
        x = self.cross_branch.leave(x, y)
        y = self.feedforward_branch.enter(x)
        y = self.feedforward(y, aux=aux) if self.reports else self.feedforward(y)
        return self.final_norm(self.feedforward_branch.leave(x, y)), cache


def _attention(value: PartLike, dim: int, source: bool = False) -> nn.Module:
    """Attention within a stream, or to a `source`; types that read one say so by their trait `source`."""
    spec = spec_of("attention", value)
    if spec is not None and bool(spec.entry.traits.get("source")) is not source:
        found, wanted = ("a source", "its own stream") if not source else ("its own stream", "a source")
        raise ValueError(f"attention {spec.type!r} reads {found}, where one is needed that reads {wanted}")
    return build_part("attention", value, dim)


def _takes_aux(feedforward: nn.Module) -> bool:
    """Whether it reports auxiliary losses; a class from elsewhere need not."""
    return "aux" in inspect.signature(feedforward.forward).parameters


def _cross_like(attention: PartLike) -> PartLike:
    """Cross-attention with the heads and the dropout of a block's self-attention, where that says them."""
    spec = spec_of("attention", attention)
    options = spec.options if spec is not None else {}
    return {"type": "cross", **{name: options[name] for name in ("heads", "dropout") if name in options}}
