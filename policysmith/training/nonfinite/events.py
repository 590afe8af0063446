"""Numbers that are not finite (NaN, inf): how they are told, and when they end a run.

In: what collectors and optimisers left out. Out: events by place, and `NonFiniteError` after too many in a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from policysmith.config.options import Section
from policysmith.errors import NonFiniteError
from policysmith.training.optim.step_guard import Skipped
from policysmith.types import Count

__all__ = [
    "EMPTY",
    "ROWS",
    "UPDATES",
    "LeftOut",
    "NonFinite",
    "NonFiniteOption",
    "NonFiniteOptions",
    "check_events",
    "left_out",
    "sentence",
]

ROWS, UPDATES = "nonfinite/rows", "nonfinite/updates"  # tags of what an iteration left out
EMPTY = "nonfinite/empty_rollouts"  # and of one with no row to learn from
SHOWN = 3  # events that a sentence tells one by one


@dataclass(frozen=True)
class NonFiniteOptions:
    """What is done about numbers that are not finite: they are left out, and `max` in a row end the run.

    In a row are steps of the optimiser, or episodes of one environment that ended so, neither by themselves nor after
    a whole rollout without such a number.
    """

    max: Count = 10


NonFiniteOption = Annotated[NonFiniteOptions, Section(NonFiniteOptions, "nonfinite")] | None


@dataclass
class LeftOut:
    """What a run left out: steps of environments, updates of the optimiser, and where the first such number was."""

    rows: int = 0
    updates: int = 0
    first: NonFinite | None = None

    def add(self, events: Sequence[NonFinite], scalars: Mapping[str, float]) -> None:
        """Count in a report's."""
        self.rows += int(scalars.get(ROWS, 0))
        self.updates += int(scalars.get(UPDATES, 0))
        if self.first is None and events:
            self.first = events[0]

    def __str__(self) -> str:
        parts = [f"{self.rows:,} steps of environments"] if self.rows else []
        parts += [f"{self.updates:,} updates"] if self.updates else []
        first = f" (first: {self.first})" if self.first else ""
        return f"{' and '.join(parts)} with numbers that are not finite{first}" if parts else ""


class NonFinite(NamedTuple):
    """One number that was left out: training step, environment (a table, of a game), leaf, and what was found there.

    `in_a_row` counts the episodes of that environment that ended so, one after the other.
    """

    step: int
    environment: int
    leaf: str
    found: float
    in_a_row: int = 1

    def __str__(self) -> str:
        return f"environment {self.environment}, step {self.step:,}: {self.leaf} is {self.found:g}"


def sentence(events: Sequence[NonFinite], updates: int = 0) -> str:
    """What some iterations left out, the first few numbers by their place; empty where nothing was."""
    told = list(map(str, events[:SHOWN]))
    if len(events) > SHOWN:
        told.append(f"and {len(events) - SHOWN:,} more")
    if updates:
        told.append(f"{updates:,} updates whose loss or gradients are not finite")
    return f"left out what is not finite: {'; '.join(told)}" if told else ""


def left_out(events: Sequence[NonFinite], skipped: Skipped) -> dict[str, float]:
    """What an iteration left out, as scalars by tag; none where it left out nothing."""
    counts = {ROWS: len(events), UPDATES: skipped.steps}
    return {tag: float(count) for tag, count in counts.items() if count}


def check_events(events: Iterable[NonFinite], most: int) -> None:
    """Raise `NonFiniteError` where an environment gave numbers that are not finite `most` times in a row."""
    for event in events:
        if event.in_a_row >= most:
            raise NonFiniteError(
                f"{event}, for the {_ordinal(event.in_a_row)} episode in a row: mend the environment, or raise "
                f"training.nonfinite.max; the policy is as it was when all was finite"
            )


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
