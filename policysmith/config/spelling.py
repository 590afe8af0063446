"""How a value that is no plain number or name is written as one text, where an option stands on a command line.

In: a text. Out: the value, or a ValueError whose sentence says what is wrong and what to write.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Named", "Spelled", "spelled_mapping", "spelled_numbers", "spelled_sizes"]

SIZE = r"[1-9]\d{0,5}"


@dataclass(frozen=True)
class Spelled:
    """Marks an option: `metavar` stands for its text in help, `read` makes the value of the text.

    With `repeated` the option may stand several times, and `read` takes the list of texts; `flag` names the option
    where it is not the parameter's name.
    """

    metavar: str
    read: Callable[[Any], Any]
    repeated: bool = False
    flag: str | None = None


@dataclass(frozen=True)
class Named:
    """Marks an option that is read as its type says, and is called otherwise: its flags, and what stands for its text.

    A flag `--a/--b` is a choice of two. `kind` is the type of the text where several types are possible.
    """

    flags: tuple[str, ...] = ()
    metavar: str | None = None
    kind: type | None = None


def spelled_sizes(count: int, what: str) -> Callable[[str], tuple[int, ...]]:
    """`9x9` → (9, 9), for `count` sizes; `what` ends the sentence of a text that is none."""

    def read(text: str) -> tuple[int, ...]:
        if not re.fullmatch("[x×]".join([f"({SIZE})"] * count), text, re.IGNORECASE):
            raise ValueError(f"{text!r} {what}")
        return tuple(int(size) for size in re.split("[x×]", text, flags=re.IGNORECASE))

    return read


def spelled_numbers(text: str) -> list[float]:
    """`1,10,255` → [1.0, 10.0, 255.0]."""
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} are no numbers: write them with commas, as in 1,10,255") from None


def spelled_mapping(
    key: str, value: str, made: Callable[[str, str], tuple[Any, Any]], what: str
) -> Callable[[list[str]], dict[Any, Any]]:
    """Texts `KEY=VALUE` → a mapping; `key` and `value` are patterns, `made` makes an entry of what they matched."""

    def read(texts: list[str]) -> dict[Any, Any]:
        found = {}
        for text in texts:
            match = re.fullmatch(f"({key})=({value})", text.strip(), re.IGNORECASE)
            if match is None:
                raise ValueError(f"{text!r} {what}")
            name, made_value = made(match[1], match[2])
            found[name] = made_value
        return found

    return read
