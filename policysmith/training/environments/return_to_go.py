"""The return that is still wanted, as an observation: what return-conditioned policies are told while they act.

In: an environment and a target. Out: the environment with one more leaf, `return_to_go`.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from policysmith.errors import ConfigError

__all__ = ["LEAF", "ReturnToGo"]

LEAF = "return_to_go"


class ReturnToGo(gym.Wrapper):
    """Adds `return_to_go` (1,): `target` when an episode begins, and less every reward since.

    A Dict observation gains the leaf; any other becomes `observation` beside it. To be scaled by the section
    `observation` (`scale: {return_to_go: 100}`), for training and acting alike.
    """

    def __init__(self, env: gym.Env, target: float) -> None:
        super().__init__(env)
        space = env.observation_space
        inner = space.spaces if isinstance(space, gym.spaces.Dict) else {"observation": space}
        if LEAF in inner:
            raise ConfigError(f"ReturnToGo: the observation has a leaf {LEAF!r} already")
        wanted = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.observation_space = gym.spaces.Dict([*inner.items(), (LEAF, wanted)])
        self._structured = isinstance(space, gym.spaces.Dict)
        self._target = self._left = float(target)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, and want the target of it."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._left = self._target
        return self._told(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; its reward is wanted no longer."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._left -= float(reward)
        return self._told(observation), reward, terminated, truncated, info

    def _told(self, observation: Any) -> dict[str, Any]:
        inner = observation if self._structured else {"observation": observation}
        return {**inner, LEAF: np.array([self._left], np.float32)}
