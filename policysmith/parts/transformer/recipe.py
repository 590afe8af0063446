"""How the blocks of one stack are made: all alike, each with weights of its own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from policysmith.parts.transformer.blocks import DecoderBlock, EncoderBlock
from policysmith.parts.transformer.slots import PartLike, Placement, build_part

__all__ = ["BlockRecipe"]


@dataclass(frozen=True)
class BlockRecipe:
    """The slots and options of every block of a stack of width `dim`, as in `EncoderBlock`."""

    dim: int
    attention: PartLike
    feedforward: PartLike
    norm: PartLike
    residual: PartLike
    placement: Placement
    dropout: float
    block_norm: bool = False

    def encoder(self, count: int) -> nn.ModuleList:
        """Blocks of self-attention."""
        return nn.ModuleList(EncoderBlock(*self._options) for _ in range(count))

    def decoder(self, count: int) -> nn.ModuleList:
        """Blocks that attend to a source as well."""
        return nn.ModuleList(DecoderBlock(*self._options) for _ in range(count))

    def final_norm(self, wanted: bool) -> nn.Module:
        """The norm behind the last block."""
        return build_part("norm", self.norm, self.dim) if wanted else nn.Identity()

    @property
    def slots(self) -> dict[str, PartLike]:
        """Slot → argument."""
        return {
            "attention": self.attention,
            "feedforward": self.feedforward,
            "norm": self.norm,
            "residual": self.residual,
        }

    @property
    def _options(self) -> tuple[int, PartLike, PartLike, PartLike, PartLike, Placement, float, bool]:
        slots = (self.attention, self.feedforward, self.norm, self.residual)
        return (self.dim, *slots, self.placement, self.dropout, self.block_norm)
