"""What an environment gives, against what its spaces promise: observations, rewards, ends of episodes, legal masks.

In: a value and a space. Out: findings, each half a sentence of what came and what the space says. Nothing is raised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from gymnasium import spaces

from policysmith.errors import ShapeError
from policysmith.policy.masks import legal_masks
from policysmith.policy.observations import ROOT

__all__ = ["Finding", "end_findings", "mask_findings", "observation_findings", "reward_findings"]

Severity = Literal["fault", "nonfinite", "warning"]


class Finding(NamedTuple):
    """What is not as promised. A `fault` can't be trained in, steps with what is `nonfinite` are left out, and a
    `warning` is of what goes on, but seldom as it was meant.
    """

    severity: Severity
    text: str


def observation_findings(space: Any, value: Any, name: str = ROOT) -> Iterator[Finding]:
    """Of every leaf that a policy can read; others are left to whoever reads them."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        yield from _structure(space, value, name)
    elif isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        yield from _leaf(space, value, name)


def reward_findings(reward: Any) -> Iterator[Finding]:
    """A reward is one number: Python's, NumPy's, a truth value, or an array without axes."""
    if not isinstance(reward, Real | np.bool_):  # of NumPy's numbers those that are real are of the first kind
        shape = getattr(reward, "shape", None)
        if shape is None or isinstance(reward, np.complexfloating | np.str_):
            yield Finding("fault", f"the reward {_short(reward)}; a reward is one number")
            return
        if tuple(shape) != ():
            yield Finding("fault", f"a reward of shape {tuple(shape)}, {_short(reward)}; a reward is one number")
            return
    if not math.isfinite(float(reward)):
        yield Finding("nonfinite", f"the reward {float(reward)}")


def end_findings(name: str, value: Any) -> Iterator[Finding]:
    """Of `terminated` and `truncated`: truth values, or 0 and 1."""
    known = isinstance(value, bool | np.bool_) or (np.ndim(value) == 0 and value in (0, 1))
    if value is None or not known:
        yield Finding("fault", f"{name} as {_short(value)}; it is True or False")


def mask_findings(space: Any, mask: Any, source: str) -> Iterator[Finding]:
    """Of one legal mask, as an environment gives it at `source`."""
    try:
        masks = legal_masks(space, mask, 1, torch.device("cpu"))
    except (ShapeError, ValueError, TypeError, RuntimeError) as error:
        yield Finding("fault", f"a mask in {source} that does not fit {_short(space)}: {error}")
        return
    numbers = [np.asarray(part, dtype=float) for part in _parts(mask)]
    odd = [part for part in numbers if not np.isin(part, (0, 1)).all()]
    if odd:
        low, high = (f"{bound(odd[0]):g}" for bound in (np.min, np.max))
        text = f"a mask in {source} with numbers from {low} to {high}; it is 1 where an action is legal, 0 where not"
        yield Finding("fault", text)
    elif not all(bool(part.any()) for part in masks):
        yield Finding("warning", f"a mask in {source} that leaves no legal action, so action 0 is taken")


def _structure(space: Any, value: Any, name: str) -> Iterator[Finding]:
    kind: Any = Mapping if isinstance(space, spaces.Dict) else tuple | list
    items = list(space.spaces.items()) if isinstance(space, spaces.Dict) else list(enumerate(space.spaces))
    if not isinstance(value, kind):
        wanted = "a dict" if kind is Mapping else f"a tuple of {len(items)}"
        yield Finding("fault", f"the {name} {_short(value)}; the space wants {wanted}")
        return
    for key, inner in items:
        below = f"{name}.{key}"
        if (key not in value) if kind is Mapping else (key >= len(value)):
            yield Finding("fault", f"no {below}; the space has {_short(inner)} there")
        else:
            yield from observation_findings(inner, value[key], below)


def _leaf(space: Any, value: Any, name: str) -> Iterator[Finding]:
    said = f"the space is {_short(space)}"
    array = _array(value)
    if array is None:
        yield Finding("fault", f"the {name} {_short(value)}; {said}")
    elif array.shape != tuple(space.shape or ()):
        yield Finding("fault", f"the {name} of shape {array.shape}; {said}")
    elif not np.can_cast(array.dtype, space.dtype, "same_kind"):
        yield Finding("fault", f"the {name} of {array.dtype}, which can't become {space.dtype}; {said}")
    else:
        if isinstance(value, list | tuple):
            yield Finding("warning", f"the {name} as a {type(value).__name__}; {said}, an array")
        elif array.dtype != space.dtype and isinstance(space, spaces.Box):
            yield Finding("warning", f"the {name} of {array.dtype}; {said}, to which every step converts it")
        yield from _numbers(space, array, name, said)


def _numbers(space: Any, array: np.ndarray, name: str, said: str) -> Iterator[Finding]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        yield Finding("nonfinite", f"the {name} with {array[~np.isfinite(array)].ravel()[0]}; {said}")
        return
    start = getattr(space, "start", 0)
    if isinstance(space, spaces.Box):
        outside, severity = (array < space.low) | (array > space.high), "warning"
    elif isinstance(space, spaces.MultiBinary):
        outside, severity = (array != 0) & (array != 1), "warning"
    else:
        size = space.n if isinstance(space, spaces.Discrete) else space.nvec
        outside, severity = (array < start) | (array >= start + size), "fault"
    if outside.any():
        found = f"{float(array[outside].ravel()[0]):g}" if array.ndim else f"{float(array):g}"
        yield Finding(severity, f"the {name} with {found}; {said}")  # type: ignore[arg-type]


def _array(value: Any) -> np.ndarray | None:
    """The value as an array of numbers or truth values; None where it is none."""
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):  # rows of several lengths, tensors on a device
        return None
    return array if array.dtype.kind in "biuf" else None


def _parts(mask: Any) -> Iterator[Any]:
    """The arrays in a mask, of whatever structure."""
    if isinstance(mask, Mapping):
        for part in mask.values():
            yield from _parts(part)
    elif isinstance(mask, tuple | list) and any(np.ndim(part) or part is None for part in mask):
        for part in mask:
            yield from _parts(part)
    elif mask is not None:
        yield mask


def _short(value: Any) -> str:
    """A value in so few words that a sentence can hold it."""
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"an array of shape {value.shape}"
    text = " ".join(str(value).split()) if isinstance(value, spaces.Space) else " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}…"
