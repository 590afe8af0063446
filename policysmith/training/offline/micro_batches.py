"""A batch of recorded transitions in parts, whose gradients add up to that of the whole: the same update, less memory.

In: a batch. Out: parts of it with their shares. B windows, L steps, N transitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from policysmith.training.offline.batches import Batch

__all__ = ["MicroBatch", "micro_batches"]


class MicroBatch(NamedTuple):
    """A part of a batch, and its share in the whole's loss; shares add up to 1."""

    batch: Batch
    share: float = 1.0


def micro_batches(batch: Batch, count: int) -> list[MicroBatch]:
    """At most `count` parts of the rows, or windows, each with its share of the transitions."""
    units = len(batch.rows) if batch.shape is None else batch.shape[0]
    sizes = [len(part) for part in torch.arange(units).tensor_split(count) if len(part)]
    if len(sizes) == 1:
        return [MicroBatch(batch)]
    parts = _rows(batch, sizes) if batch.shape is None else _windows(batch, sizes, batch.shape[1])
    return [MicroBatch(part, len(part.rows) / len(batch.rows)) for part in parts if len(part.rows)]


def _rows(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    rows = batch.rows.split(list(sizes))
    seen, acted, masks = (_split(leaves, sizes) for leaves in (batch.observations, batch.actions, batch.masks))
    return [Batch(rows[i], seen[i], acted[i], masks[i]) for i in range(len(sizes))]


def _windows(batch: Batch, sizes: Sequence[int], steps: int) -> list[Batch]:
    assert batch.valid is not None
    flat = [size * steps for size in sizes]
    valid = batch.valid.split(flat)
    rows = batch.rows.split([int(part.sum()) for part in valid])
    seen, acted, masks = (_split(leaves, flat) for leaves in (batch.observations, batch.actions, batch.masks))
    return [Batch(rows[i], seen[i], acted[i], masks[i], (sizes[i], steps), valid[i]) for i in range(len(sizes))]


def _split(leaves: Sequence[Tensor], sizes: Sequence[int]) -> list[list[Tensor]]:
    """Leaves of each part."""
    parts = [leaf.split(list(sizes)) for leaf in leaves]
    return [[leaf[i] for leaf in parts] for i in range(len(sizes))]
