"""Which tests each command leaves to a longer one: of many alike cases a few stay, spread over all of them."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["quick", "thinned"]

QUICK_LAWS = 25  # `make test-quick` runs every law with every 25th of its cases
QUICK_TESTS = 1  # and of each other file this many tests: with two it would take longer than 90 seconds


def thinned(cases: Iterable[Any], keep: int) -> list[Any]:
    """The cases for `parametrize`: the first of every `keep` runs always, the others are marked slow."""
    rows = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*row, marks=() if i % keep == 0 else pytest.mark.slow) for i, row in enumerate(rows)]


def quick(names: Iterable[str]) -> set[str]:
    """Of the collected tests' names those that `make test-quick` runs.

    The architecture whole; every law with the first of each `QUICK_LAWS` cases; of every other file the first
    `QUICK_TESTS` tests, each with its first case.
    """
    cases, tests = Counter[str](), Counter[str]()
    kept = set()
    for name in names:
        file, test = name.partition("::")[0], name.partition("[")[0]
        tests[file] += test not in cases
        if file == "tests/test_architecture.py":
            keep = True
        elif file.startswith("tests/laws/"):
            keep = cases[test] % QUICK_LAWS == 0
        else:
            keep = cases[test] == 0 and tests[file] <= QUICK_TESTS
        cases[test] += 1
        if keep:
            kept.add(name)
    return kept
