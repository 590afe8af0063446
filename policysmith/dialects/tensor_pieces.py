"""What our tensors are made of, where another system lays its weights out in other ways than ours.

In: names and shapes of the other system. Out: a list of pieces, each one of our tensors and how it is had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from policysmith.dialects.weight_layout import Shapes, Size

__all__ = ["Piece", "assembled", "dense", "same_vectors", "sources"]


def _same(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Piece:
    """One of our tensors: `make` of the original's, in the order of `sources`; without a name they are only checked."""

    ours: str | None
    sources: Shapes
    make: Callable[..., Tensor] = _same


def dense(ours: str, theirs: str, outputs: Size, inputs: Size) -> list[Piece]:
    """A linear layer."""
    weight: Shapes = {f"{theirs}.weight": (outputs, inputs)}
    return [Piece(f"{ours}.weight", weight), Piece(f"{ours}.bias", {f"{theirs}.bias": (outputs,)})]


def same_vectors(ours: str, theirs: str, width: Size, vectors: Iterable[str]) -> list[Piece]:
    """Vectors of one width that have the same names on both sides."""
    return [Piece(f"{ours}.{vector}", {f"{theirs}.{vector}": (width,)}) for vector in vectors]


def sources(pieces: Iterable[Piece]) -> Shapes:
    """Every tensor that the pieces need, with its shape."""
    return {name: shape for piece in pieces for name, shape in piece.sources.items()}


def assembled(pieces: Iterable[Piece], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors by name, of tensors that fit."""
    return {p.ours: p.make(*(tensors[name] for name in p.sources)) for p in pieces if p.ours is not None}
