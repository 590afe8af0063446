"""Formats of the configuration file: older data is brought to the current format, newer data is refused.

A step is a function from the mapping of format n to that of format n + 1; `format` itself is set here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from policysmith.errors import ConfigError, Problem

__all__ = ["CURRENT_FORMAT", "migrate"]

CURRENT_FORMAT = 1

Step = Callable[[dict[str, Any]], dict[str, Any]]

_STEPS: dict[int, Step] = {}


def migrate(
    data: dict[str, Any], *, steps: Mapping[int, Step] = _STEPS, current: int = CURRENT_FORMAT
) -> dict[str, Any]:
    """`data` in the current format, as a new mapping; without the key `format` it is taken to be in it already.

    Args:
        data: a whole configuration; it is not changed.
        steps: for each older format, the function that leads to the next.
        current: the format to reach.

    Raises:
        ConfigError: `format` is no whole number from 1, or is newer than `current`.
    """
    found = data.get("format", current)
    if type(found) is not int or found < 1:
        raise _refused(f"must be a whole number from 1 to {current}, found {found!r}")
    if found > current:
        raise _refused(
            f"format {found} is newer than this policysmith understands ({current}); install a newer policysmith"
        )
    migrated = copy.deepcopy(data)
    for number in range(found, current):
        migrated = {**steps[number](migrated), "format": number + 1}
    return migrated


def _refused(message: str) -> ConfigError:
    return ConfigError([Problem("format", message)])
