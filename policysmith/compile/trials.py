"""Which way of running a call is fastest here: a short measurement of several, interleaved.

In: calls by the choice they stand for, the plain one first. Out: the choice to take, and the seconds of each.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["Choice", "fastest"]

ROUNDS = 7
WARM_UPS = 3  # of a compiled call: it compiles, and with CUDA graphs records, before it shows its speed
MARGIN = 0.9  # what is to be taken in place of the plain call must need less than this share of its time
HOPELESS = 4.0  # times the plain call: not run again (bfloat16 can be 90 times slower on a CPU that does not have it)

log = logging.getLogger(__name__)


class Choice(NamedTuple):
    """What is on."""

    amp: bool
    compile: bool

    def __str__(self) -> str:
        return " + ".join(name for name, on in self._asdict().items() if on) or "plain"


def fastest(
    calls: Mapping[Choice, Callable[[], Any]], timer: Callable[[], float], synchronize: Callable[[], None]
) -> tuple[Choice, dict[Choice, float]]:
    """The choice whose call is fastest by the median of its runs, and the median seconds of each that was measured.

    The first call is the plain one: others need a clear lead; those that fail, or are far behind at once, are out.
    `synchronize` waits until the device has done what it was given, `timer` gives seconds.
    """
    plain = next(iter(calls))
    calls[plain]()
    times: dict[Choice, list[float]] = {
        choice: [] for choice in calls if choice == plain or _works(choice, calls[choice])
    }
    for turn in range(ROUNDS):
        for choice, spent in times.items():
            synchronize()
            started = timer()
            calls[choice]()
            synchronize()
            spent.append(timer() - started)
        if turn == 0:
            limit = HOPELESS * times[plain][0]
            times = {choice: spent for choice, spent in times.items() if choice == plain or spent[0] <= limit}
    medians = {choice: statistics.median(spent) for choice, spent in times.items()}
    best = min(medians, key=lambda choice: medians[choice])
    return (best if medians[best] < MARGIN * medians[plain] else plain), medians


def _works(choice: Choice, call: Callable[[], Any]) -> bool:
    """Whether the call can be made here; making it warms it up."""
    try:
        for _ in range(WARM_UPS if choice.compile else 1):
            call()
    except Exception as error:  # no C++ compiler, a device without bfloat16: whatever it is, the plain call works
        log.info("%s does not work here: %s: %s", choice, type(error).__name__, " ".join(str(error).split("\n")[:2]))
        return False
    return True
