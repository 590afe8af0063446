"""Sizes of memory as people write them: `4GB`, `512 MiB`, or a number of bytes; and as we tell them."""

from __future__ import annotations

import re

__all__ = ["memory_bytes", "size_text"]

SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kMGTPE]?)(i?)B", re.IGNORECASE)
POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


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


def size_text(count: int) -> str:
    """Bytes in binary units: `512 B`, `35.8 KiB`, `3.6 EiB`."""
    if count < 1024:
        return f"{count} B"
    size, unit = float(count), 0
    while round(size, 1) >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:,.1f} {UNITS[unit]}"
