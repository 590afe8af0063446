"""How the blocks of one stack are made: all alike, each with weights of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from policysmith.parts.transformer.blocks import DecoderBlock, EncoderBlock
from policysmith.parts.transformer.slots import PartLike, build_part

__all__ = ["BlockRecipe"]


@dataclass(frozen=True)
class BlockRecipe:
    """Blocks of width `dim` with the `options` of `EncoderBlock`; `block_norm` gives each a norm behind it."""

    dim: int
    options: Mapping[str, Any]
    block_norm: bool

    def encoder(self, count: int) -> nn.ModuleList:
        """Blocks of self-attention."""
        return nn.ModuleList(EncoderBlock(self.dim, final_norm=self.block_norm, **self.options) for _ in range(count))

    def decoder(self, count: int) -> nn.ModuleList:
        """Blocks that attend to a source as well."""
        return nn.ModuleList(DecoderBlock(self.dim, final_norm=self.block_norm, **self.options) for _ in range(count))

    def final_norm(self, wanted: bool) -> nn.Module:
        """The norm behind the last block."""
        return build_part("norm", self.options["norm"], self.dim) if wanted else nn.Identity()

    @property
    def slots(self) -> dict[str, PartLike]:
        """Slot → argument."""
        return {slot: self.options[slot] for slot in ("attention", "feedforward", "norm", "residual")}
