"""What a skill may cost: how often its loops go round, how long its lists and texts are, how large its numbers.

In: values of a skill's code. Out: the same, or a `SkillError`. A `Budget` counts for one call; every other bound is of
one value. A time limit alone would be met late: `10 ** 10 ** 8` is one operation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from policysmith.errors import SkillError

__all__ = ["LARGEST_ARRAY", "LARGEST_WHOLE_NUMBER", "STEPS", "Budget", "check_bits"]

STEPS = 1_000_000  # of all loops of one call together, and elements of the lists and texts that it makes
LARGEST_WHOLE_NUMBER = 4096  # bits: beyond the range of floats fourfold, and cheap to multiply
LARGEST_ARRAY = 10_000_000  # elements: a doubling in a loop ends here
DEEPEST_CALLS = 100  # of functions that call themselves, far below where the interpreter gives up


class Budget:
    """What is `left` for a call."""

    def __init__(self) -> None:
        self.left, self.depth = STEPS, 0

    def spend(self, count: int) -> None:
        """Use some of it. Raises `SkillError` when there is not so much."""
        self.left -= count
        if self.left < 0:
            raise SkillError(
                f"it goes round loops, or makes lists, of more than {STEPS:,} elements in one call; simplify it"
            )

    def tick(self) -> None:
        """One round of a loop."""
        self.spend(1)

    def each(self, values: Any) -> Any:
        """The values, to be gone through once; one by one where nobody knows how many there are."""
        try:
            count = len(values)
        except TypeError:
            return self._counted(iter(values))
        self.left -= count
        if self.left < 0:
            self.spend(0)
        return values

    def copied(self, value: Any) -> Any:
        """A list, tuple or text that was made just now."""
        if isinstance(value, list | tuple | str | set | dict):
            self.spend(len(value))
        return value

    def _counted(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.spend(1)
            yield value

    def nested(self, function: Any) -> Any:
        """A function that calls itself, or others that call it: so deep and no deeper."""

        def call(*values: Any, **named: Any) -> Any:
            self.depth += 1
            try:
                if self.depth > DEEPEST_CALLS:
                    raise SkillError(f"its functions call themselves more than {DEEPEST_CALLS} deep; use a loop")
                return function(*values, **named)
            finally:
                self.depth -= 1

        return call


def check_bits(bits: int) -> None:
    """Raises `SkillError` for a whole number that would have more bits than a skill may use."""
    if bits > LARGEST_WHOLE_NUMBER:
        raise SkillError(f"a whole number of more than {LARGEST_WHOLE_NUMBER:,} bits; use floats (2.0 ** x)")
