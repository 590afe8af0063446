"""What the wrappers of an environment tell of its observations, which their spaces don't: bytes that are codes.

In: an environment with its wrappers. Out: what is known of leaves by name. Nothing is imported: classes are known by
the module that they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from policysmith.policy.readings import Known

__all__ = ["known_leaves"]

# MiniGrid's cells: 11 objects, 6 colours, and the state of a door (3) or the direction of an agent (4).
CODES = (11, 6, 4)
PIXELS = {"RGBImgObsWrapper", "RGBImgPartialObsWrapper"}
# Bytes that are 0 or 1, or codes beside them: they are read as they are.
ENCODED = {"OneHotPartialObsWrapper", "FlatObsWrapper", "DictObservationSpaceWrapper"}
LARGEST = 10.0  # of MiniGrid's codes: what they are divided by where their channels are no axis any more


def known_leaves(environment: gymnasium.Env[Any, Any]) -> dict[str, Known]:
    """What is known of the leaves of this environment's observations, by their names in its space."""
    if not any(_is(base, "minigrid", "MiniGridEnv") for base in type(environment.unwrapped).__mro__):
        return {}
    wrappers = [type(layer).__name__ for layer in _layers(environment) if _is(type(layer), "minigrid")]
    if PIXELS & set(wrappers):
        return {}
    by = (
        f"cells of MiniGrid, by the wrapper {wrappers[0]}"
        if wrappers
        else "cells of MiniGrid, by the environment's class"
    )
    encoded = bool(ENCODED & set(wrappers))
    return {name: _known(leaf, by, encoded) for name, leaf in _byte_leaves(environment.observation_space)}


def _known(leaf: spaces.Box, by: str, encoded: bool) -> Known:
    if encoded:
        return Known(by, scale=1.0)
    whole = len(leaf.shape) in (3, 4) and leaf.shape[-1] == len(CODES)
    return Known(by, codes=CODES) if whole else Known(by, scale=LARGEST)


def _byte_leaves(space: spaces.Space[Any]) -> Iterator[tuple[str, spaces.Box]]:
    named: Mapping[str, Any] = space.spaces if isinstance(space, spaces.Dict) else {"observation": space}
    for name, leaf in named.items():
        if isinstance(leaf, spaces.Box) and leaf.dtype == np.uint8:
            yield name, leaf


def _layers(environment: gymnasium.Env[Any, Any]) -> Iterator[gymnasium.Env[Any, Any]]:
    """Its wrappers, from the outside in."""
    while isinstance(environment, gymnasium.Wrapper):
        yield environment
        environment = environment.env


def _is(kind: type, package: str, name: str | None = None) -> bool:
    return kind.__module__.split(".")[0] == package and name in (None, kind.__name__)
