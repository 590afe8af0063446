"""The last state of a training in which everything was finite, to go back to.

In: modules that learn and their optimiser. Out: weights, statistics, moments and averages, put back in place.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from policysmith.errors import DivergenceWarning, NonFiniteError
from policysmith.training.distribution.world import World
from policysmith.training.optim.snapshot import Snapshot, changing
from policysmith.training.optim.step_guard import Skipped, all_finite, local_part

__all__ = ["Rollback"]

# Weights that grow tenfold in norm within one iteration have left what was learned: in sound runs they take many
# iterations to double.
GROWTH = 10.0


class Rollback:
    """Keeps a finite state, and goes back to it: after an iteration whose end is not finite, and at an exception.

    `keep` is called before each iteration, `settle` at its end; several processes call them alike, and go back alike.
    As a context it puts the kept state back when anything is raised between the two, so that what the last whole
    iteration led to is what is left. A `Snapshot` that a run has just made, and left with the optimiser, is taken as it
    is: the state is copied once for both.
    """

    def __init__(self, modules: Sequence[nn.Module], optimizer: Any, most: int, world: World | None = None) -> None:
        self._modules, self._optimizer, self._most = modules, optimizer, most
        self._world = world or World()
        self._kept: Snapshot | None = None
        self._own: Snapshot | None = None  # one that nobody else has, whose memory is used again
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
        live = changing(self._modules, self._optimizer)
        made, self._optimizer.snapshot = self._optimizer.snapshot, None
        if made is not None and made.is_of(live):
            self._kept, self._own = made, None
        elif self._own is not None and self._own.is_of(live):
            self._own.renew()
            self._kept = self._own
        else:
            self._kept = self._own = Snapshot(live)
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
        assert self._kept is not None
        self._kept.restore()
        for inner in self._optimizer.torch_optimizers.values():
            for parameter, entry in list(inner.state.items()):
                if any(isinstance(value, Tensor) and not self._kept.holds(value) for value in entry.values()):
                    del inner.state[parameter]
        self._norm = None

    def _learning(self) -> list[nn.Parameter]:
        return [p for module in self._modules for p in module.parameters() if p.requires_grad]

    def _weights(self) -> list[Tensor]:
        """What learns."""
        return [parameter.detach() for parameter in self._learning()]

    def _is_finite(self) -> bool:
        """Whether the whole state is, on every process; warns where the weights have grown out of bounds."""
        weights = self._weights()
        learning = set(map(id, self._learning()))
        state = changing(self._modules, self._optimizer)
        others = [t.detach() for t in state if t.is_floating_point() and t.dim() and id(t) not in learning]
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
