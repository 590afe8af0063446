"""Environment variables in a configuration: `${env:NAME}`, `${env:NAME,default}`, `${env:int:NAME,7}`.

In: the arguments as OmegaConf's grammar reads them, and as they were written. Out: the value, through its cast.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from policysmith.config.located_data import Refused, quote
from policysmith.config.yaml_text import core_scalar
from policysmith.errors import did_you_mean

__all__ = ["variable"]


def variable(args: tuple[Any, ...], written: tuple[str, ...]) -> Any:
    """The variable that the first argument names, as `NAME` or `cast:NAME`, else the second argument.

    Both go through the cast, so that the type does not depend on whether the variable is set; null stays null.

    Raises:
        Refused: the variable is not set and has no default, or the cast does not fit.
    """
    if len(args) not in (1, 2):
        raise Refused("env takes the name of a variable and a default: ${env:NAME,default}")
    cast, _, name = (part.strip() for part in str(args[0]).rpartition(":"))
    if cast not in CASTS:
        raise Refused(f"unknown cast {quote(cast)}{did_you_mean(cast, CASTS)}; casts: {', '.join(filter(None, CASTS))}")
    if name in os.environ:
        return _cast(cast, os.environ[name], f"environment variable {name}")
    if len(args) == 1:
        raise Refused(f"environment variable {name} is not set and has no default; write ${{env:{name},default}}")
    return _default(cast, args[1], written[1])


def _default(cast: str, value: Any, written: str) -> Any:
    if value is None or (cast == "json" and not isinstance(value, str)):
        return value
    if not isinstance(value, str | int | float):
        raise Refused("a default that is a list or a mapping needs the cast json")
    if not isinstance(value, str):  # a number is kept as it was written, unless a reference gave it
        value = str(value) if "${" in written else written
    return _cast(cast, value, "the default")


def _cast(cast: str, text: str, source: str) -> Any:
    try:
        return CASTS[cast](text)
    except ValueError:
        # A variable may hold a secret: its name says enough. A default stands in the file itself.
        if source != "the default":
            raise Refused(f"{source} is no {cast} (its value is not shown)") from None
        raise Refused(f"{source} is {quote(text)}, which is no {cast}") from None


def _int(text: str) -> int:
    value = core_scalar(text.strip())
    if type(value) is not int:
        raise ValueError
    return value


def _float(text: str) -> float:
    value = core_scalar(text.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return float(value)


def _bool(text: str) -> bool:
    word = text.strip().lower()
    if word not in (*TRUE, *FALSE):
        raise ValueError
    return word in TRUE


TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
CASTS: dict[str, Callable[[str], Any]] = {"": str, "int": _int, "float": _float, "bool": _bool, "json": json.loads}
