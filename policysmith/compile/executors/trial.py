"""Two ways to make the same calls: both are timed on the first calls themselves, then the faster one makes them.

In: the ways, and what makes calls alike. Out: the result of one of them; every call is made once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from policysmith.compile.exclusive import exclusive

__all__ = ["Trials", "alike", "drew"]

ROUNDS = 5  # timed calls of each way, after one that is not
MARGIN = 0.9  # the second way must need less than this share of the first one's time
KEPT = 256  # kinds of calls that are remembered

Way = Callable[[], Any]


class Trials:
    """What was found for each kind of call. `timer` gives seconds; `force` takes the second way always."""

    def __init__(self, force: bool = False, timer: Callable[[], float] = time.perf_counter) -> None:
        self.force, self.timer = force, timer
        self.found: dict[Hashable, _Trial] = {}

    def run(self, key: Hashable, probe: Callable[[], tuple[Any, bool]], first: Way, second: Way, device: Any) -> Any:
        """Make a call of the kind `key`.

        `probe` makes the first of them, the first way, and says whether the second one is out of the question.
        """
        if self.force:
            return second()
        trial = self.found.get(key)
        if trial is None:
            trial = self._begin(key)
            result, out = probe()
            trial.takes_second = False if out else None
            trial.probed = True
            return result
        if trial.takes_second is not None:
            return second() if trial.takes_second else first()
        if not trial.probed:  # another thread is about to find out
            return first()
        return trial.timed(first, second, self.timer, device)

    def _begin(self, key: Hashable) -> _Trial:
        with exclusive(self):
            while len(self.found) >= KEPT:
                self.found.pop(next(iter(self.found)))
            return self.found.setdefault(key, _Trial())


class _Trial:
    def __init__(self) -> None:
        self.takes_second: bool | None = None
        self.probed = False
        self.times: tuple[list[float], list[float]] = ([], [])

    def timed(self, first: Way, second: Way, timer: Callable[[], float], device: Any) -> Any:
        turn = len(self.times[0]) > len(self.times[1])
        _synchronize(device)
        started = timer()
        result = (second if turn else first)()
        _synchronize(device)
        self.times[turn].append(timer() - started)
        if min(map(len, self.times)) > ROUNDS:
            one, two = (statistics.median(spent[1:]) for spent in self.times)
            self.takes_second = two < MARGIN * one
        return result


def alike(tensors: Sequence[Any]) -> tuple[Any, ...]:
    """What tensors of calls of one kind have in common: shapes, types and devices, and whether gradients are wanted."""
    kinds = tuple((x.shape, x.dtype, x.device) if isinstance(x, Tensor) else type(x) for x in tensors)
    return (*kinds, torch.is_grad_enabled(), torch.is_inference_mode_enabled())


def drew(call: Way, device: Any) -> tuple[Any, bool]:
    """The result of a call, and whether it drew random numbers."""
    before = _generators(device)
    result = call()
    return result, any(not torch.equal(a, b) for a, b in zip(before, _generators(device), strict=True))


def _generators(device: Any) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if _kind(device) == "cuda" else states


def _synchronize(device: Any) -> None:
    if _kind(device) not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)


def _kind(device: Any) -> str:
    return str(getattr(device, "type", "cpu"))
