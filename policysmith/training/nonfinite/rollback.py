"""The last state of a training in which everything was finite, to go back to.

In: modules that learn and their optimiser. Out: copies of weights, statistics, moments and averages, put back in place.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from policysmith.errors import DivergenceWarning, NonFiniteError
from policysmith.training.distribution.world import World
from policysmith.training.optim.averaging import WeightAverage
from policysmith.training.optim.step_guard import Skipped, all_finite, local_part

__all__ = ["Rollback"]

# Weights that grow tenfold in norm within one iteration have left what was learned: in sound runs they take many
# iterations to double.
GROWTH = 10.0


class Rollback:
    """Keeps a finite state, and goes back to it: after an iteration whose end is not finite, and at an exception.

    `keep` is called before each iteration, `settle` at its end; several processes call them alike, and go back alike.
    As a context it puts the kept state back when anything is raised between the two, so that what the last whole
    iteration led to is what is left.
    """

    def __init__(self, modules: Sequence[nn.Module], optimizer: Any, most: int, world: World | None = None) -> None:
        self._modules, self._optimizer, self._most = modules, optimizer, most
        self._world = world or World()
        self._live: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._norm: float | None = None
        self._step: int | None = None
        self._undone, self._settled, self._warned = 0, True, False

    def __enter__(self) -> Self:
        return self

    def kept_at(self, step: int) -> Self:
        """The same context, after keeping the present state as that of this step."""
        self.keep(step)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self._settled:
            self.restore()
            if isinstance(error, NonFiniteError):
                error.step = self._step

    @torch.no_grad()
    def keep(self, step: int | None = None) -> None:
        """Take the present state as the last finite one; `step` says when that is, and an error hands it on."""
        self._step = step
        live = self._state()
        if len(live) != len(self._live) or any(a is not b for a, b in zip(live, self._live, strict=True)):
            self._live, self._copies = live, [tensor.detach().clone() for tensor in live]
        elif any(isinstance(tensor, DTensor) for tensor in live):
            for copy, tensor in zip(self._copies, live, strict=True):
                copy.copy_(tensor)
        else:
            torch._foreach_copy_(self._copies, live)
        if self._norm is None:
            self._norm = _norm(self._weights())
        self._settled = False

    def settle(self, learned: bool = True) -> Skipped:
        """At the end of an iteration: go back if it left anything that is not finite. Not `learned` says that there
        was nothing finite to learn from.

        Returns the steps of the optimiser that were skipped. Raises `NonFiniteError` after too many in a row, or after
        too many iterations in a row in which nothing was learned or all was undone. Warns once of weights that grow
        out of bounds.
        """
        skipped: Skipped = self._optimizer.guard.taken()
        finite = self._is_finite()
        if not finite:
            self.restore()
        self._undone = 0 if finite and learned else self._undone + 1
        if skipped.in_a_row >= self._most or self._undone >= self._most:
            raise NonFiniteError(_sentence(skipped, self._undone))
        self._settled = True
        return skipped

    @torch.no_grad()
    def restore(self) -> None:
        """Put the last kept state back. Moments that came into being since are forgotten."""
        for tensor, copy in zip(self._live, self._copies, strict=True):
            tensor.detach().copy_(copy)
        kept = set(map(id, self._live))
        for inner in _inner(self._optimizer):
            for parameter, entry in list(inner.state.items()):
                if any(isinstance(value, Tensor) and id(value) not in kept for value in entry.values()):
                    del inner.state[parameter]
        self._norm = None

    def _state(self) -> list[Tensor]:
        """Every tensor that training changes, each once: weights, statistics, moments, averages."""
        tensors = [t for module in self._modules for t in (*module.parameters(), *module.buffers())]
        tensors += [
            value
            for inner in _inner(self._optimizer)
            for entry in inner.state.values()
            for value in entry.values()
            if isinstance(value, Tensor)
        ]
        averages = [f for f in self._optimizer.followers if isinstance(f, WeightAverage)]
        tensors += [tensor for average in averages for tensor in average.tensors]
        return list({id(tensor): tensor for tensor in tensors}.values())

    def _learning(self) -> list[nn.Parameter]:
        return [p for module in self._modules for p in module.parameters() if p.requires_grad]

    def _weights(self) -> list[Tensor]:
        """What learns."""
        return [parameter.detach() for parameter in self._learning()]

    def _is_finite(self) -> bool:
        """Whether the whole state is, on every process; warns where the weights have grown out of bounds."""
        weights = self._weights()
        learning = set(map(id, self._learning()))
        others = [t.detach() for t in self._state() if t.is_floating_point() and t.dim() and id(t) not in learning]
        # Sums of squares are the quick test, which large numbers may fail: only then is each number looked at.
        norm, before = _norm(weights), self._norm
        finite = math.isfinite(norm + _norm(others)) or all_finite([*weights, *others])
        self._norm = norm if finite else None
        if before is not None and finite and norm > GROWTH * before and not self._warned:
            self._warned = True
            if self._world.writes:
                warnings.warn(_growth(before, norm), DivergenceWarning, stacklevel=4)
        return not self._world.any(not finite)


def _norm(tensors: Sequence[Tensor]) -> float:
    if not tensors:
        return 0.0
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm([local_part(tensor) for tensor in tensors]))))


def _inner(optimizer: Any) -> list[torch.optim.Optimizer]:
    """torch's optimisers of ours."""
    several = getattr(optimizer, "torch_optimizers", None)
    return list(several.values()) if several is not None else [optimizer.torch_optimizer]


def _sentence(skipped: Skipped, undone: int) -> str:
    what = (
        f"the loss or its gradients were not finite in {skipped.in_a_row:,} steps of the optimiser in a row"
        if skipped.in_a_row > undone
        else f"{undone:,} iterations in a row gave nothing finite to learn from, or weights that are not finite"
    )
    return f"{what}: lower learning_rate, or look at the rewards' size; the policy is as it was when all was finite"


def _growth(before: float, now: float) -> str:
    return (
        f"training diverges: within one iteration the norm of the weights grew from {before:.3g} to {now:.3g}; "
        "lower learning_rate"
    )
