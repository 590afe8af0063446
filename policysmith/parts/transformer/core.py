"""A transformer over whole sequences, assembled from slots: one stack, or an encoder and a decoder.

In: source tokens (B, S, D), with padding and target tokens where there are any. Out: one token of width D for each
step, target token or learned query. B batch, S source tokens, T tokens of the decoder, D width.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from policysmith.config.options import options_of
from policysmith.ops.init import with_role
from policysmith.ops.timeline import Timeline, over_sequence, unpadded
from policysmith.parts.transformer.blocks import EncoderBlock
from policysmith.parts.transformer.causality import refuse_mixing
from policysmith.parts.transformer.recipe import BlockRecipe
from policysmith.parts.transformer.slots import Position, build_part
from policysmith.types import Count, Repeats, Width

__all__ = ["Architecture", "DecoderInput", "DynamicTransformerCore"]

Architecture = Literal["decoder_only", "encoder_only", "encoder_decoder"]
DecoderInput = Literal["queries", "shifted", "target"]
Aux = dict[str, Tensor] | None


class DynamicTransformerCore(nn.Module):
    """Blocks, positions and final norms of one architecture.

    `decoder_only` is a stack of causal self-attention, `encoder_only` one whose steps see everything (or what came
    before, with `causal`). `encoder_decoder` reads the source with a decoder whose tokens are `decoder_input`:
    learned `queries`; the source `shifted` by one step, behind a learned first token; or a `target` given at the call.

    `causal`: no output depends on a later token of its own sequence, which is the source, or the target where there is
    one. Raises ValueError for options that the architecture does not have and for parts that a causal one can't have.

    Args:
        dim: The width of the tokens.
        architecture: Which stacks there are, and what a step may see.
        layers: How many blocks the stack has; of two stacks, the encoder.
        decoder_layers: How many blocks the decoder has; by default as many as the encoder.
        position: How a token knows its place.
        causal: Whether no output depends on a later token; null takes what the architecture says.
        final_norm: Whether the last block is followed by a norm.
        block_norm: Whether every block is followed by a norm.
        decoder_input: The decoder's tokens: learned queries, the source shifted by one step, or a target.
        queries: How many learned queries the decoder has; 16 by default.
    """

    @options_of(EncoderBlock)
    def __init__(
        self,
        dim: Width,
        architecture: Architecture = "decoder_only",
        layers: Repeats = 2,
        decoder_layers: Repeats | None = None,
        *,
        position: Position = "rope",
        causal: bool | None = None,
        final_norm: bool = True,
        block_norm: bool = False,
        decoder_input: DecoderInput | None = None,
        queries: Count | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        _check_decoder_options(architecture, decoder_layers, decoder_input, queries)
        self.decoder_input = (decoder_input or "queries") if architecture == "encoder_decoder" else None
        self.causal = _is_causal(architecture, causal, self.decoder_input)
        recipe = BlockRecipe(dim, options, block_norm)
        if self.causal:
            refuse_mixing(recipe.slots, "which a causal transformer forbids")
        self.encoder_position = build_part("position", position, dim)
        self.encoder_blocks = recipe.encoder(layers)
        self.encoder_norm = recipe.final_norm(final_norm)
        if self.decoder_input is not None:
            self.decoder_position = build_part("position", position, dim)
            self.decoder_blocks = recipe.decoder(decoder_layers or layers)
            self.decoder_norm = recipe.final_norm(final_norm)
            learned = {"queries": queries or 16, "shifted": 1}.get(self.decoder_input)
            self.tokens = with_role(_Tokens(learned, dim), "embedding") if learned else None

    def forward(
        self,
        source_BSD: Tensor,
        target_BTD: Tensor | None = None,
        padding_BS: Tensor | None = None,
        aux: Aux = None,
    ) -> Tensor:
        """Tokens → tokens (B, S, D), or (B, T, D) of the decoder; `padding_BS` is True where there is no token."""
        position, sees_past = self.encoder_position, self.causal and self.decoder_input != "target"
        timeline = over_sequence(source_BSD, position, sees_past, padding_BT=padding_BS)  # type: ignore[arg-type]
        x = position.embed(source_BSD, timeline.positions)  # type: ignore[operator]
        for block in self.encoder_blocks:
            x, _ = block(x, timeline, None, aux)
        x = self.encoder_norm(x)
        return x if self.decoder_input is None else self._decode(x, source_BSD, target_BTD, timeline, aux)

    def _decode(self, x_BSD: Tensor, source_BSD: Tensor, target: Tensor | None, source: Timeline, aux: Aux) -> Tensor:
        """What the decoder makes of the encoder's output `x_BSD`; `source` is the encoder's timeline."""
        tokens = self._decoder_tokens(source_BSD, target)
        shifted, position = self.decoder_input == "shifted", self.decoder_position
        padding = source.padding if shifted else None
        timeline = over_sequence(tokens, position, self.causal, padding_BT=padding)  # type: ignore[arg-type]
        seen = timeline.visible() if shifted else None if source.padding is None else unpadded(source.padding)
        y = position.embed(tokens, timeline.positions)  # type: ignore[operator]
        for block in self.decoder_blocks:
            y, _ = block(y, x_BSD, timeline, None, seen, aux)
        return self.decoder_norm(y)

    def _decoder_tokens(self, source_BSD: Tensor, target: Tensor | None) -> Tensor:
        if self.decoder_input == "target":
            if target is None:
                raise ValueError("decoder_input: target needs a target beside the source")
            return target
        learned_BTD = self.tokens(len(source_BSD))  # type: ignore[misc]
        return learned_BTD if self.decoder_input == "queries" else torch.cat((learned_BTD, source_BSD[:, :-1]), 1)


class _Tokens(nn.Module):
    """Learned tokens, the same for every row."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, dim))

    def forward(self, batch: int) -> Tensor:
        """(batch, count, D)."""
        return self.weight.expand(batch, -1, -1)


def _check_decoder_options(
    architecture: Architecture, decoder_layers: int | None, decoder_input: DecoderInput | None, queries: int | None
) -> None:
    given = {"decoder_layers": decoder_layers, "decoder_input": decoder_input, "queries": queries}
    for name, value in given.items():
        if architecture != "encoder_decoder" and value is not None:
            more = "; its number of blocks is layers" if name == "decoder_layers" else ""
            raise ValueError(f"{name}={value!r} belongs to architecture: encoder_decoder, not to {architecture}{more}")
    if queries is not None and decoder_input not in (None, "queries"):
        raise ValueError(f"queries={queries} belongs to decoder_input: queries, not to {decoder_input}")


def _is_causal(architecture: Architecture, causal: bool | None, decoder_input: DecoderInput | None) -> bool:
    if architecture == "decoder_only" and causal is False:
        raise ValueError(
            "causal=False: decoder_only is causal self-attention; use architecture: encoder_only to see both ways"
        )
    if decoder_input == "queries" and causal:
        raise ValueError("causal=True: learned queries see the whole source; use decoder_input: shifted, or target")
    return architecture == "decoder_only" or bool(causal)
