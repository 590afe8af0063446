"""The weights of legacy agents: where each of our tensors lies there.

In: a checkpoint, and for each prefix of our names the legacy one. Out: pieces of our state, as `pieces.py` has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from policysmith.dialects.metta.agent import Layer
from policysmith.dialects.tensor_pieces import Piece
from policysmith.errors import CheckpointError

__all__ = ["Buffers", "legacy_tensors", "pieces_of", "take_buffers"]

ROOT = "components."
TWICE = ".weight_net."  # a layer's own name for what also lies under _net


@dataclass(frozen=True)
class Buffers:
    """What is configuration here and lay in buffers there: embeddings' `active` rows, `divisors` by component."""

    active: list[int] | None = None
    divisors: Mapping[str, list[float]] = field(default_factory=dict)


def legacy_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of components, named from `components.` on; what lies there twice and is the same, once.

    Names that are of no component stay as they are.
    """
    found = {name[name.find(ROOT) :] if ROOT in name else name: tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in found.items() if not _is_double(name, found)}


def take_buffers(tensors: dict[str, Tensor], layers: Mapping[str, Layer], file: Path | None) -> Buffers:
    """What the components' buffers hold, taken out of `tensors`.

    Raises `CheckpointError` for rows that are no whole numbers, and where embeddings disagree on them.
    """
    rows, divisors = [], {}
    for name, layer in layers.items():
        if layer.kind == "ActionEmbedding":
            rows.append(tensors.pop(f"{ROOT}{name}.active_indices", None))
        if layer.kind == "ObservationNormalizer" and (found := tensors.pop(f"{ROOT}{name}.obs_norm", None)) is not None:
            divisors[name] = found.flatten().tolist()
    stored = [found for found in rows if found is not None]
    if any(found.dim() != 1 or found.is_floating_point() or not torch.equal(found, stored[0]) for found in stored):
        raise CheckpointError(f"{file}: active_indices must be one list of whole numbers, alike for all embeddings")
    return Buffers([int(row) for row in stored[0]] if stored and len(stored[0]) else None, divisors)


def pieces_of(
    state: Mapping[str, Tensor], prefixes: Mapping[str, str | None], tensors: Mapping[str, Tensor]
) -> list[Piece]:
    """For each tensor of our state the legacy one."""
    return [Piece(name, {_theirs(name, prefixes, tensors): tuple(ours.shape)}) for name, ours in state.items()]


def _theirs(name: str, prefixes: Mapping[str, str | None], tensors: Mapping[str, Tensor]) -> str:
    bare = name.removeprefix(ROOT)
    prefix = max((p for p in prefixes if bare.startswith(f"{p}.")), key=len, default=None)
    if prefix is None:
        return name
    rest = bare[len(prefix) + 1 :]
    theirs = prefixes[prefix]
    return f"{ROOT}{theirs}.{rest}" if theirs is not None else _only(f"{ROOT}{prefix.split('.')[0]}.", rest, tensors)


def _only(start: str, rest: str, tensors: Mapping[str, Tensor]) -> str:
    """The one tensor below `start` that ends in `rest`, whatever the module between is called."""
    found = [name for name in tensors if name.startswith(start) and name.endswith(f".{rest}")]
    return found[0] if len(found) == 1 else f"{start}{rest}"


def _is_double(name: str, tensors: Mapping[str, Tensor]) -> bool:
    if TWICE not in name:
        return False
    others = (name.replace(TWICE, net) for net in ("._net.0.", "._net."))
    return any(other in tensors and torch.equal(tensors[other], tensors[name]) for other in others)
