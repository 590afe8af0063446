"""Spaces as data: the section `spaces` describes a policy's observations and actions where no environment does.

In: options. Out: gymnasium spaces. Their types are in the slot `space`; `dict` and `tuple` nest others.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import MinLen
from gymnasium import spaces as gym

from policysmith.config.limits import Limits
from policysmith.errors import ConfigError
from policysmith.registry import PartSpec, Slot, register
from policysmith.types import Count

__all__ = ["box", "dictionary", "discrete", "multi_binary", "multi_discrete", "tuple_of"]

Bound = float | list[Any]
Dtype = Literal["float32", "float64", "uint8", "int8", "int16", "int32", "int64"]
Space = Annotated[PartSpec | str, Slot("space")]


@register("box", slot="space")
def box(shape: list[Count], low: Bound | None = None, high: Bound | None = None, dtype: Dtype = "float32") -> gym.Box:
    """Array of numbers.

    Args:
        shape: sizes of its axes; none for a single number.
        low: smallest values, a number or nested lists of the array's shape; by default the dtype's own.
        high: greatest values, likewise.
        dtype: kind of its numbers; bytes in three axes are an image.
    """
    kind = np.dtype(dtype)
    # Gymnasium makes an array of each bound, and two of which numbers have one.
    if problem := Limits().space_problem((2 * kind.itemsize + 2) * math.prod(shape), "its bounds"):
        raise ConfigError(f"a box of shape {shape} {problem}")
    floating = kind.kind == "f"
    lowest, highest = (-np.inf, np.inf) if floating else (np.iinfo(kind).min, np.iinfo(kind).max)
    low_array = _bound("low", lowest if low is None else low, shape, kind)
    high_array = _bound("high", highest if high is None else high, shape, kind)
    if not np.all(low_array <= high_array):
        raise ConfigError(f"low must not exceed high, found low {low} and high {high}")
    return gym.Box(low_array, high_array, tuple(shape), kind.type)


@register("discrete", slot="space")
def discrete(n: Count, start: int = 0) -> gym.Discrete:
    """One of `n` choices, numbered from `start`.

    Args:
        n: How many values there are.
        start: The smallest value.
    """
    return gym.Discrete(n, start=start)


@register("multi_discrete", slot="space")
def multi_discrete(nvec: Annotated[list[Count], MinLen(1)]) -> gym.MultiDiscrete:
    """Several choices at once; `nvec` says how many there are of each.

    Args:
        nvec: How many values each entry has.
    """
    return gym.MultiDiscrete(nvec)


@register("multi_binary", slot="space")
def multi_binary(n: Count) -> gym.MultiBinary:
    """`n` switches, each on or off.

    Args:
        n: How many bits there are.
    """
    return gym.MultiBinary(n)


@register("dict", slot="space")
def dictionary(spaces: dict[str, Space]) -> gym.Dict:
    """Spaces by name, in the order they are written.

    Args:
        spaces: The spaces by name.
    """
    return gym.Dict([(name, _built(inner, name)) for name, inner in spaces.items()])


@register("tuple", slot="space")
def tuple_of(spaces: list[Space]) -> gym.Tuple:
    """Spaces one after another.

    Args:
        spaces: The spaces in their order.
    """
    return gym.Tuple([_built(inner, index) for index, inner in enumerate(spaces)])


def _built(space: Any, key: str | int) -> gym.Space:
    try:
        return space.build()
    except ConfigError as error:
        raise ConfigError(f"in {key!r}: {error}") from None


def _bound(name: str, value: object, shape: list[int], dtype: np.dtype) -> np.ndarray:
    """The bound as an array of the space's shape; `ConfigError` where it has none of that shape or does not fit."""
    try:
        array = np.broadcast_to(np.asarray(value, dtype=np.float64), tuple(shape))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be a number or nested lists of shape {shape}: {error}") from None
    if dtype.kind == "f":
        return array.astype(dtype)
    limits = np.iinfo(dtype)
    if not np.all((array >= limits.min) & (array <= limits.max) & (array == np.floor(array))):
        raise ConfigError(f"{name} has values that {dtype} does not hold, found {value}")
    # Not through float64, which does not hold the greatest integers of 64 bits.
    return np.broadcast_to(np.asarray(value, dtype=object), tuple(shape)).astype(dtype)
