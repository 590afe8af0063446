"""What a skill is trained in: copies of an environment that know the tasks' functions. N copies, D features.

In: actions (N,) and the task of each copy. Out: observations (N, D), the tasks' own rewards, and whether they are done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces

from policysmith.errors import SkillError
from policysmith.skills.modules.tasks import TaskFunctions

__all__ = ["Copy", "Copies", "SkillEnvironment", "SkillVectorEnv", "SkillStep"]


class SkillStep(NamedTuple):
    """Observations (N, D); of the task that each copy was in: reward (N,) and whether it is done (N,); and whether the
    environment itself has ended (N,), or was cut off by a time limit (N,).
    """

    observations: np.ndarray
    rewards: np.ndarray
    task_done: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class SkillVectorEnv(Protocol):
    """N copies side by side; one that has ended waits for `restart`."""

    count: int
    observation_space: spaces.Box
    action_space: spaces.Discrete

    def reset(self, seed: int | None) -> np.ndarray:
        """All copies anew: observations (N, D)."""
        ...

    def restart(self, rows: np.ndarray) -> np.ndarray:
        """Some copies (n,) anew: their observations (n, D)."""
        ...

    def step(self, actions: np.ndarray, tasks: np.ndarray) -> SkillStep:
        """One step of every copy, judged by the task (N,) that it is in."""
        ...

    def close(self) -> None:
        """Free what the copies hold."""
        ...


class SkillEnvironment(Protocol):
    """A type of the slot `skill_environment`: what a file says of an environment, from which worlds are made.

    `features` are the names of what tasks' functions may take.
    """

    features: frozenset[str]
    num_envs: int

    def spaces(self) -> tuple[spaces.Box, spaces.Discrete]:
        """Observation and action space of one copy."""
        ...

    def world(self, functions: TaskFunctions, count: int | None = None) -> SkillVectorEnv:
        """`count` copies (default: `num_envs`) that are judged by these functions."""
        ...


class Copy(Protocol):
    """One copy of an environment in Python."""

    observation_space: spaces.Box
    action_space: spaces.Discrete

    def reset(self, seed: int | None) -> np.ndarray:
        """Anew: the observation (D,)."""
        ...

    def step(self, action: int) -> tuple[np.ndarray, bool, bool]:
        """One step: observation (D,), whether the environment has ended, and whether it was cut off."""
        ...

    def features(self) -> Mapping[str, Any]:
        """What the functions may ask for, after the latest step."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Copies:
    """A world of copies that are stepped one after another."""

    def __init__(self, copies: Sequence[Copy], functions: TaskFunctions) -> None:
        self.copies, self.functions, self.count = list(copies), functions, len(copies)
        self.observation_space, self.action_space = copies[0].observation_space, copies[0].action_space

    def reset(self, seed: int | None) -> np.ndarray:
        """All copies anew, the i-th with `seed + i`: (N, D)."""
        return np.stack([copy.reset(None if seed is None else seed + i) for i, copy in enumerate(self.copies)])

    def restart(self, rows: np.ndarray) -> np.ndarray:
        """Some copies (n,) anew; chance goes on where it was: (n, D)."""
        return np.stack([self.copies[row].reset(None) for row in rows])

    def step(self, actions: np.ndarray, tasks: np.ndarray) -> SkillStep:
        """One step of every copy."""
        stepped = [copy.step(action) for copy, action in zip(self.copies, actions.tolist(), strict=True)]
        observations, terminated, truncated = zip(*stepped, strict=True)
        rewards, done = np.zeros(self.count), np.zeros(self.count, dtype=bool)
        for row, (copy, task) in enumerate(zip(self.copies, tasks.tolist(), strict=True)):
            features = copy.features()
            rewards[row] = finite(self.functions.reward(task, features), task)
            done[row] = bool(self.functions.is_done(task, features))
        return SkillStep(np.stack(observations), rewards, done, np.array(terminated), np.array(truncated))

    def close(self) -> None:
        """Close every copy."""
        for copy in self.copies:
            copy.close()


def finite(reward: Any, task: int) -> float:
    """The reward, which is a finite number."""
    try:
        number = float(reward)
    except (TypeError, ValueError):
        raise SkillError(f"task_{task}_reward gave {reward!r}, not a number") from None
    if not math.isfinite(number):
        raise SkillError(f"task_{task}_reward gave {number}, not a finite number")
    return number
