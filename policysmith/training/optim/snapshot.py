"""A copy of all that training changes, made once for everybody who needs the state of that moment.

In: modules that learn and their optimiser. Out: copies of weights, statistics, moments and averages, each found by the
tensor that it is of; and those tensors put back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from policysmith.training.optim.averaging import WeightAverage

__all__ = ["Snapshot", "changing"]


class Snapshot:
    """The tensors `live` as they were when it was made, or last renewed."""

    @torch.no_grad()
    def __init__(self, live: Sequence[Tensor]) -> None:
        self._live = list(live)
        self._copies = [tensor.detach().clone() for tensor in live]
        self._places = {id(tensor): place for place, tensor in enumerate(self._live)}

    @classmethod
    def of(cls, modules: Sequence[nn.Module], optimizer: Any) -> Self:
        """Of all that training changes."""
        return cls(changing(modules, optimizer))

    def holds(self, tensor: Tensor) -> bool:
        """Whether it is a copy of this tensor, among others."""
        return id(tensor) in self._places

    def is_of(self, live: Sequence[Tensor]) -> bool:
        """Whether it is a copy of these very tensors."""
        return len(live) == len(self._live) and all(a is b for a, b in zip(live, self._live, strict=True))

    def copy(self, tensor: Tensor) -> Tensor:
        """The copy of a tensor, which nobody may change; of one that it lacks, a new one."""
        place = self._places.get(id(tensor))
        return tensor.detach().clone() if place is None else self._copies[place]

    def copies(self, tensors: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
        """The copies of tensors by name; what is no tensor is left out."""
        return {prefix + name: self.copy(t) for name, t in tensors.items() if isinstance(t, Tensor)}

    @torch.no_grad()
    def renew(self) -> None:
        """Copy the tensors again, in the same memory: only for one whose copies nobody else has."""
        if any(isinstance(tensor, DTensor) for tensor in self._live):
            for copy, tensor in zip(self._copies, self._live, strict=True):
                copy.copy_(tensor)
        elif self._live:
            torch._foreach_copy_(self._copies, self._live)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copies in the tensors' place."""
        for tensor, copy in zip(self._live, self._copies, strict=True):
            tensor.detach().copy_(copy)


def changing(modules: Sequence[nn.Module], optimizer: Any) -> list[Tensor]:
    """Every tensor that training changes, each once: weights, statistics, moments, averages."""
    tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    tensors += [
        value
        for inner in optimizer.torch_optimizers.values()
        for entry in inner.state.values()
        for value in entry.values()
        if isinstance(value, Tensor)
    ]
    averages = [f for f in optimizer.followers if isinstance(f, WeightAverage)]
    tensors += [tensor for average in averages for tensor in average.tensors]
    return list({id(tensor): tensor for tensor in tensors}.values())
