"""The minibatches of one epoch, as all ranks agree on them: as many steps everywhere, and moments of the whole.

In: this rank's minibatches, cut into parts. Out: the same with its share in each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from policysmith.training.distribution.world import World
from policysmith.training.ppo.minibatches import Minibatch

__all__ = ["GlobalMinibatch", "Moments", "global_minibatches"]


class Moments(NamedTuple):
    """The standard deviation and the mean of a minibatch's advantages: scalars."""

    std: Tensor
    mean: Tensor


class GlobalMinibatch(NamedTuple):
    """The parts of a minibatch on this rank; `weight` is its share of all ranks' rows, times the number of ranks.

    `moments` are those of all ranks' advantages; None of a single row, which has no deviation.
    """

    parts: Sequence[Minibatch]
    weight: float
    moments: Moments | None


def global_minibatches(
    minibatches: Sequence[Sequence[Minibatch]], most: int, world: World, counts: bool = True
) -> Iterator[GlobalMinibatch]:
    """The minibatches of an epoch, each in parts, at most `most` on any rank.

    A rank that has fewer than another steps once more over its last one, which then does not count; nor does anything
    of a rank that says so of itself.
    """
    if world.size == 1:
        yield from (_alone(parts) for parts in minibatches)
        return
    sums = torch.zeros(most, 3, dtype=torch.float64)  # rows, sum and sum of squares
    for row, parts in zip(sums, minibatches if counts else [], strict=False):
        whole = _advantages(parts).double()
        row.copy_(torch.stack([whole.new_tensor(len(whole)), whole.sum(), whole.square().sum()]))
    for index, (rows, total, squares) in enumerate(world.total(sums).tolist()):
        if not rows:
            return
        parts = minibatches[min(index, len(minibatches) - 1)]
        own, like = float(sums[index, 0]), _advantages(parts)
        mean = total / rows
        std = (max(squares - rows * mean * mean, 0.0) / max(rows - 1, 1)) ** 0.5
        moments = Moments(like.new_tensor(std), like.new_tensor(mean)) if rows > 1 else None
        yield GlobalMinibatch(parts, own * world.size / rows, moments)


def _alone(parts: Sequence[Minibatch]) -> GlobalMinibatch:
    whole = _advantages(parts)
    return GlobalMinibatch(parts, 1.0, Moments(*torch.std_mean(whole)) if len(whole) > 1 else None)


def _advantages(parts: Sequence[Minibatch]) -> Tensor:
    return torch.cat([p.columns.advantage for p in parts]) if len(parts) > 1 else parts[0].columns.advantage
