"""Sizes of memory as people write them: `4GB`, `512 MiB`, or a number of bytes."""

from __future__ import annotations

import re

__all__ = ["memory_bytes"]

SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?)(i?)B", re.IGNORECASE)
POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def memory_bytes(value: int | str) -> int:
    """A size in bytes; `4GB` is 4·10⁹ of them and `4GiB` 4·2³⁰. Raises ValueError saying what a size looks like."""
    if isinstance(value, str) and (found := SIZE.fullmatch(value.strip())):
        number, power, binary = found.groups()
        size = round(float(number) * (1024 if binary else 1000) ** POWERS[power.lower()])
    else:
        size = value if type(value) is int else 0
    if size <= 0:
        raise ValueError(f"expected a size of memory such as 4GB, 512MiB or a number of bytes, found {value!r}")
    return size
