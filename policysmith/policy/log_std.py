"""The bounds of a Gaussian's log-deviation, which keep an entropy bonus or a diverging network from losing the float's
range. In: a head's options. Out: the lowest and the highest log-deviation.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from annotated_types import Ge, Le

from policysmith.errors import ConfigError

__all__ = ["LogStd", "Std", "log_std_range", "stated_bounds"]

Std = Literal["independent", "dependent"]
# Beyond ±20 the square of (action - mean) / deviation leaves float32, and a log-probability becomes infinite.
LogStd = Annotated[float, Ge(-20), Le(20)]
LOWEST = -20.0
HIGHEST_DEPENDENT = 2.0  # as in SAC (arXiv 1801.01290)
# A free log-deviation may leave its start by a factor of 22,000 before the bound holds it: enough for actions in any
# unit, and so far that no run that goes well ever meets it.
FREE_STEPS = 10.0


def log_std_range(
    std: Std, initial_std: float = 1.0, log_std_min: float | None = None, log_std_max: float | None = None
) -> tuple[float, float]:
    """(lowest, highest) log-deviation: what is stated, else -20 and 2 (`dependent`) or ln(initial_std) + 10.

    Raises `ConfigError` where the bounds leave no room, or a stated one excludes `initial_std`.
    """
    start = math.log(initial_std)
    usual = HIGHEST_DEPENDENT if std == "dependent" else max(0.0, start) + FREE_STEPS
    low, high = LOWEST if log_std_min is None else log_std_min, usual if log_std_max is None else log_std_max
    if std == "independent" and log_std_min is None:
        low = min(low, start)
    if low >= high:
        raise ConfigError(f"log_std_min={low:g} must be less than log_std_max={high:g}")
    outside = (log_std_min is not None and start < low) or (log_std_max is not None and start > high)
    if outside:
        raise ConfigError(
            f"initial_std={initial_std:g} has the logarithm {start:.3g}, outside log_std_min={low:g} and "
            f"log_std_max={high:g}: choose it between {math.exp(low):.3g} and {math.exp(high):.3g}"
        )
    return low, high


def stated_bounds(log_std_min: float | None, log_std_max: float | None) -> dict[str, float]:
    """The options of a head for the bounds that a model states."""
    bounds = {"log_std_min": log_std_min, "log_std_max": log_std_max}
    return {name: value for name, value in bounds.items() if value is not None}
