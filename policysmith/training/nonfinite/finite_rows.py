"""Which rows of what an environment gives are finite. N environments.

In: observations and rewards of a vector of environments, as NumPy. Out: rows whose numbers a float32 can hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from policysmith.policy.actor_critic import ActorCritic

__all__ = ["FloatLeaf", "all_finite", "bad_rows", "blanked", "first_bad", "float_leaves"]

LARGEST = float(np.finfo(np.float32).max)
# The sum of squares of numbers that fit a float32 is no larger than that of as many of the largest; one number beyond
# makes it larger than this. NaN and inf compare as false, and a sum that overflows asks for a closer look.
BOUND = LARGEST**2


class FloatLeaf(NamedTuple):
    """A leaf of the observation that can hold numbers that are not finite: its name, and where it lies."""

    name: str
    path: tuple[Any, ...]

    def of(self, observation: Any) -> Any:
        """The leaf's array in an observation, single or batched."""
        for key in self.path:
            observation = observation[key]
        return observation


def float_leaves(policy: ActorCritic) -> list[FloatLeaf]:
    """The leaves that are floats in the environment; integers are always finite."""
    leaves = policy.observations.leaves
    return [FloatLeaf(leaf.name, leaf.path) for leaf in leaves if np.issubdtype(leaf.space.dtype, np.floating)]


def all_finite(array: Any) -> bool:
    """Whether a float32 can hold every number; False may also mean that their squares overflow, so look again."""
    return float(np.vdot(array, array)) <= BOUND


def bad_rows(array: Any) -> np.ndarray:
    """(N,) rows with a number that a float32 can't hold."""
    numbers = np.abs(np.asarray(array, dtype=np.float64)).reshape(len(array), -1)
    rows: np.ndarray = np.logical_not(numbers.max(axis=1, initial=0.0) <= LARGEST)  # NaN is the largest of all
    return rows


def first_bad(array: Any) -> float:
    """The first number that a float32 can't hold."""
    numbers = np.asarray(array, dtype=np.float64).ravel()
    return float(numbers[~(np.abs(numbers) <= LARGEST)][0])


def blanked(observation: Any, rows: np.ndarray, leaves: Sequence[FloatLeaf]) -> Any:
    """A copy of a batch of observations with zeros in the float leaves of these rows: what a policy can be shown."""
    if not leaves:
        return observation
    if leaves[0].path == ():
        observation = np.array(observation)
        observation[rows] = 0.0
        return observation
    for leaf in leaves:
        observation = _replaced(observation, leaf.path, rows)
    return observation


def _replaced(observation: Any, path: tuple[Any, ...], rows: np.ndarray) -> Any:
    """The structure with zeros in the rows of one leaf; what is not on the way to it is shared."""
    if not path:
        array = np.array(observation)
        array[rows] = 0.0
        return array
    key, *rest = path
    inner = _replaced(observation[key], tuple(rest), rows)
    if isinstance(observation, tuple):
        return (*observation[:key], inner, *observation[key + 1 :])
    return {**observation, key: inner}
