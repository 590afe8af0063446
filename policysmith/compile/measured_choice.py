"""Which of several ways to make the same call is fastest here: each is timed in turn, and the plain one must be beaten.

In: the ways, the plain one first. Out: the one to take. `fastest` measures before the calls that count, and `Trials`
on these calls themselves, once for each kind of them.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from policysmith.compile.exclusive import exclusive

__all__ = ["Choice", "Trial", "Trials", "alike", "drew", "fastest"]

MARGIN = 0.9  # what is to be taken in place of the plain way must need less than this share of its time
ROUNDS = 7  # timed calls of each way, where calls are made for the sake of timing
LIVE_ROUNDS = 5  # fewer where users' own calls are timed: half of them go the slower way
WARM_UPS = 3  # of a compiled call: it compiles, and with CUDA graphs records, before it shows its speed
HOPELESS = 4.0  # times the plain call: not run again (bfloat16 can be 90 times slower on a CPU that does not have it)
KEPT = 256  # kinds of calls that are remembered: shapes may go on changing

W = TypeVar("W", bound=Hashable)
R = TypeVar("R")
Call = Callable[[], R]
Timer = Callable[[], float]

log = logging.getLogger(__name__)


class Trial(Generic[W]):
    """Times ways to make a call, in turn, until each has been timed `rounds` times; the first of them is the plain one.

    `chosen` is None until then. `untimed` calls of each way come before: they warm up. After the first timed round,
    ways that took `hopeless` times as long as the plain one are out.
    """

    def __init__(self, ways: Iterable[W], rounds: int, untimed: int = 0, hopeless: float | None = None) -> None:
        self.times: dict[W, list[float]] = {way: [] for way in ways}
        self.chosen: W | None = None
        self._plain = next(iter(self.times))
        self._rounds, self._untimed, self._hopeless = rounds, untimed, hopeless

    @property
    def turn(self) -> W:
        """The way that was timed least often."""
        return min(self.times, key=lambda way: len(self.times[way]))

    @property
    def medians(self) -> dict[W, float]:
        """Seconds of each way that is not out."""
        return {way: statistics.median(spent[self._untimed :]) for way, spent in self.times.items()}

    def make(self, way: W, call: Call[R], timer: Timer, synchronize: Callable[[], None]) -> R:
        """The result of the call, which is timed; `synchronize` waits until the device has done what it was given."""
        synchronize()
        started = timer()
        result = call()
        synchronize()
        self.times[way].append(timer() - started)
        calls = min(map(len, self.times.values()))
        if calls == self._untimed + 1 and self._hopeless is not None:
            first = self._untimed
            limit = self._hopeless * self.times[self._plain][first]
            self.times = {w: spent for w, spent in self.times.items() if w == self._plain or spent[first] <= limit}
        if calls >= self._untimed + self._rounds:  # more, where another thread was timing too
            medians = self.medians
            best = min(medians, key=lambda way: medians[way])
            self.chosen = best if medians[best] < MARGIN * medians[self._plain] else self._plain
        return result


class Choice(NamedTuple):
    """What is on."""

    amp: bool
    compile: bool

    def __str__(self) -> str:
        return " + ".join(name for name, on in self._asdict().items() if on) or "plain"


def fastest(
    calls: Mapping[Choice, Call[Any]], timer: Timer, synchronize: Callable[[], None]
) -> tuple[Choice, dict[Choice, float]]:
    """The choice whose call is fastest by the median of its runs, and the median seconds of each that was measured.

    The first call is the plain one: others need a clear lead; those that fail, or are far behind at once, are out.
    `synchronize` waits until the device has done what it was given, `timer` gives seconds.
    """
    plain = next(iter(calls))
    calls[plain]()
    trial = Trial([c for c in calls if c == plain or _works(c, calls[c])], ROUNDS, hopeless=HOPELESS)
    while trial.chosen is None:
        turn = trial.turn
        trial.make(turn, calls[turn], timer, synchronize)
    return trial.chosen, trial.medians


def _works(choice: Choice, call: Call[Any]) -> bool:
    """Whether the call can be made here; making it warms it up."""
    try:
        for _ in range(WARM_UPS if choice.compile else 1):
            call()
    except Exception as error:  # no C++ compiler, a device without bfloat16: whatever it is, the plain call works
        log.info("%s does not work here: %s: %s", choice, type(error).__name__, " ".join(str(error).split("\n")[:2]))
        return False
    return True


class Trials:
    """Two ways to make calls, timed on the calls themselves: what was found for each kind of them, by its key.

    `timer` gives seconds; `force` takes the second way always.
    """

    def __init__(self, force: bool = False, timer: Timer = time.perf_counter) -> None:
        self.force, self.timer = force, timer
        self.found: dict[Hashable, _LiveTrial] = {}

    def run(
        self, key: Hashable, probe: Call[tuple[R, bool]], first: Call[R], second: Call[R], device: torch.device
    ) -> R:
        """Make a call of the kind `key`.

        `probe` makes the first of them, the first way, and says whether the second one is out of the question.
        """
        if self.force:
            return second()
        trial = self.found.get(key)
        if trial is None:
            trial = self._begin(key)
            result, out = probe()
            if out:
                trial.chosen = False
            trial.probed = True
            return result
        if trial.chosen is not None:
            return second() if trial.chosen else first()
        if not trial.probed:  # another thread is about to find out
            return first()
        turn = trial.turn
        return trial.make(turn, second if turn else first, self.timer, lambda: _synchronize(device))

    def _begin(self, key: Hashable) -> _LiveTrial:
        with exclusive(self):
            while len(self.found) >= KEPT:
                self.found.pop(next(iter(self.found)))
            return self.found.setdefault(key, _LiveTrial())


class _LiveTrial(Trial[bool]):
    """A trial on users' own calls: whether the second way is taken. The first call of each is not counted."""

    def __init__(self) -> None:
        super().__init__([False, True], LIVE_ROUNDS, untimed=1)
        self.probed = False


def alike(tensors: Sequence[Any]) -> tuple[Any, ...]:
    """What tensors of calls of one kind have in common: shapes, types and devices, and whether gradients are wanted."""
    kinds = tuple((x.shape, x.dtype, x.device) if isinstance(x, Tensor) else type(x) for x in tensors)
    return (*kinds, torch.is_grad_enabled(), torch.is_inference_mode_enabled())


def drew(call: Call[R], device: torch.device) -> tuple[R, bool]:
    """The result of a call, and whether it drew random numbers."""
    before = _generators(device)
    result = call()
    return result, any(not torch.equal(a, b) for a, b in zip(before, _generators(device), strict=True))


def _generators(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _synchronize(device: torch.device) -> None:
    if device.type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)
