"""What `make test` leaves to `make test-slow`: of many alike cases a few stay, spread over all of them."""

from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["thinned"]


def thinned(cases: Iterable[Any], keep: int) -> list[Any]:
    """The cases for `parametrize`: the first of every `keep` runs always, the others are marked slow."""
    rows = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*row, marks=() if i % keep == 0 else pytest.mark.slow) for i, row in enumerate(rows)]
