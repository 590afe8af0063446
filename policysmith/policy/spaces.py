"""Gymnasium spaces as trees of leaves: what can be supported, and where each leaf lies.

A leaf's path is a tuple of keys and indices; its name is the dotted path under a root name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gymnasium import spaces

from policysmith.errors import ConfigError

__all__ = ["SpacePath", "leaf_spaces", "leaves_of", "pick", "rebuild", "space_bytes"]

SpacePath = tuple[str | int, ...]
CELL = 4  # bytes: networks compute in float32

_REFUSED_ACTIONS = {
    "Text": "text has no fixed size: offer a Discrete choice of phrases in an environment wrapper",
    "Sequence": "sequences vary in length: pad it to a MultiDiscrete of fixed length with a value for 'nothing'",
    "Graph": "graphs vary in size: turn it into a fixed array in an environment wrapper",
}
_REFUSED = {
    "Text": "text has no fixed size: exclude it (observation: {exclude: [%s]}), or turn it into numbers in a wrapper",
    "Graph": "graphs vary in size: turn it into a fixed array in an environment wrapper, or exclude it",
    "Sequence": "sequences vary in length: pad it to a Box with a mask in an environment wrapper, or exclude it",
    "OneOf": "a choice between spaces has no single shape: use a Dict with a Discrete selector",
}


def leaf_spaces(
    space: spaces.Space, root: str, exclude: Sequence[str] = ()
) -> Iterator[tuple[SpacePath, spaces.Space]]:
    """(path, space) of each supported leaf, depth first; refuses what can't be a tensor with a sentence of advice."""
    yield from _walk(space, root, (), tuple(exclude))


def _walk(
    space: spaces.Space, root: str, path: SpacePath, exclude: tuple[str, ...]
) -> Iterator[tuple[SpacePath, spaces.Space]]:
    if ".".join(map(str, path)) in exclude and path:
        return
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _walk(inner, root, (*path, key), exclude)
    elif isinstance(space, spaces.Tuple):
        for index, inner in enumerate(space.spaces):
            yield from _walk(inner, root, (*path, index), exclude)
    elif isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        yield path, space
    else:
        kind = next((base.__name__ for base in type(space).__mro__ if base.__name__ in _REFUSED), type(space).__name__)
        where = ".".join(map(str, path))
        table = _REFUSED if root == "observation" else {**_REFUSED, **_REFUSED_ACTIONS}
        usual = "wrap the environment so that it gives Box, Discrete, Dict or Tuple spaces"
        if where and root == "observation":
            usual = f"exclude it (observation: {{exclude: [%s]}}), or {usual}"
        advice = table.get(kind, usual)
        advice = advice % (where or "…") if "%s" in advice else advice
        raise ConfigError(f"the {root} space has a {kind} at {where or 'its root'}: {advice}")


def space_bytes(space: Any) -> int:
    """What a network reads or gives for one row of a space, in bytes: numbers, and one for each choice."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return sum(map(space_bytes, inner))
    if isinstance(space, spaces.Discrete):
        return CELL * int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return CELL * sum(int(n) for n in space.nvec.flat)
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return CELL * math.prod(space.shape)
    return 0


def pick(structure: Any, path: SpacePath) -> Any:
    """The leaf at a path of nested mappings and sequences."""
    for key in path:
        structure = structure[key] if not isinstance(structure, Mapping) or key in structure else structure[str(key)]
    return structure


def leaves_of(structure: object, paths: Sequence[SpacePath]) -> list[Any]:
    """The leaves at each path."""
    return [pick(structure, path) for path in paths]


def rebuild(space: spaces.Space, leaves: Sequence[Any]) -> Any:
    """Leaves in depth-first order → the structure of the space: one leaf, a dict, or a tuple."""
    return _rebuild(space, iter(leaves))


def _rebuild(space: spaces.Space, leaves: Iterator[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _rebuild(inner, leaves) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_rebuild(inner, leaves) for inner in space.spaces)
    return next(leaves)
