"""An environment that says of itself what goes wrong in it: which copy, which step, and where in its own code.

In: one environment. Out: the same; what it raises, or gives against its space, is one sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np

from policysmith.errors import EnvironmentFailure, PolicysmithError
from policysmith.training.environments.against_space import observation_findings, reward_findings
from policysmith.training.environments.source_place import first_line, method_place, raised_place

__all__ = ["Guarded", "failure", "named"]

_NUMBERS = frozenset({float, int, bool, np.float64, np.float32, np.int64, np.bool_})


class Guarded(gym.Wrapper):
    """The environment numbered `index` of a vector. Raises `EnvironmentFailure` for whatever it raises.

    An observation of the shape and the type that were judged before passes by one comparison.
    """

    def __init__(self, env: gym.Env, index: int) -> None:
        super().__init__(env)
        self._index, self._steps = index, 0
        self._known: Any = object()  # equal to nothing: the first observation is judged

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._steps = 0
        observation, info = self._asked("reset", lambda: self.env.reset(seed=seed, options=options))
        if _look(observation) != self._known:
            self._judge("reset", observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step."""
        self._steps += 1
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except PolicysmithError:
            raise
        except Exception as error:
            raise failure(self.env, "step", error, self._where) from error
        if _look(observation) != self._known:
            self._judge("step", observation)
        if type(reward) not in _NUMBERS:
            self._refuse("step", reward_findings(reward))
        if terminated or truncated:  # an environment may write the next episode over it, and it is still needed
            observation = deepcopy(observation)
        return observation, reward, terminated, truncated, info

    def _asked(self, method: str, call: Callable[[], tuple[Any, dict[str, Any]]]) -> tuple[Any, dict[str, Any]]:
        try:
            observation, info = call()
        except PolicysmithError:
            raise
        except Exception as error:
            raise failure(self.env, method, error, self._where) from error
        return observation, info

    def _judge(self, method: str, observation: Any) -> None:
        self._refuse(method, observation_findings(self.env.observation_space, observation))
        self._known = _look(observation)

    def _refuse(self, method: str, findings: Any) -> None:
        for finding in findings:
            if finding.severity == "fault":
                kind = type(self.env.unwrapped)
                raise EnvironmentFailure(f"{named(kind, method)} gave {finding.text} ({self._where})")

    @property
    def _where(self) -> str:
        return f"environment {self._index}, step {self._steps} of its episode"


def failure(env: gym.Env, method: str, error: Exception, where: str) -> EnvironmentFailure:
    """The sentence of what an environment raised: its class, the error, and the line of its own that it came from."""
    kind = type(env.unwrapped)
    place = raised_place(error, kind)
    return EnvironmentFailure(f"{kind.__name__}.{method} raised {first_line(error)} ({place}; {where})")


def named(kind: type, method: str) -> str:
    """A method of an environment, as a sentence names it: `Mine.step (mine.py:12)`."""
    place = method_place(kind, method)
    return f"{kind.__name__}.{method}{f' ({place})' if place else ''}"


def _look(observation: Any) -> Any:
    """What of an observation has to stay as it was judged: type, shape and dtype of every leaf."""
    if isinstance(observation, np.ndarray):
        return observation.shape, observation.dtype
    if isinstance(observation, dict):
        return {key: _look(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_look(value) for value in observation)
    return type(observation)
