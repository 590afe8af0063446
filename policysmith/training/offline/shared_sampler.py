"""What one rank learns from of each batch of recorded data: every unit goes to one rank, and none to two.

In: a batch of all ranks. Out: this rank's part, and how much it counts. B units, W ranks.
"""

from __future__ import annotations

from torch import Tensor

from policysmith.training.distribution.world import World
from policysmith.training.offline.batches import Batch, Sampler, make_batch
from policysmith.training.offline.data import OfflineData

__all__ = ["SharedSampler"]


class SharedSampler(Sampler):
    """A sampler of batches of `size` units for every rank; all draw the same order and take their part of it."""

    def __init__(self, data: OfflineData, units: Tensor, size: int, seed: int, world: World) -> None:
        super().__init__(data, units, size * world.size, seed)
        self._world = world

    def batch(self, update: int) -> Batch:
        """This rank's part of that update's batch. Of fewer units than ranks, some get one that does not count."""
        drawn = self.drawn(update)
        own = drawn.tensor_split(self._world.size)[self._world.rank]
        return make_batch(self.data, own if len(own) else drawn[:1])

    def weight(self, update: int) -> float:
        """Its transitions that count, of all ranks', times the number of ranks."""
        counts = [_transitions(part) for part in self.drawn(update).tensor_split(self._world.size)]
        return counts[self._world.rank] * self._world.size / sum(counts)


def _transitions(units: Tensor) -> int:
    """Rows, or the steps of windows without their burn-in."""
    if units.ndim == 1:
        return len(units)
    begin, before, end = units.unbind(1)
    return int((end - begin - before).sum())
