"""How a vector begins ended episodes anew: the three modes of gymnasium as the two that are stepped in. N environments.

In: a vector of environments. Out: one that begins them itself, in the same step or with the next one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.utils import iterate

from policysmith.errors import PolicysmithError
from policysmith.training.environments.legal import begun_info
from policysmith.training.nonfinite.finite_steps import Restart

__all__ = ["SelfResetting", "resets_next_step", "restarter", "self_resetting"]


def restarter(environments: VectorEnv) -> Restart | None:
    """What begins some environments (N,) anew and leaves the others where they are; None where nothing can.

    It takes the rows and the info of the step before, and gives observations and info of all.
    Gymnasium's own vectors know `reset(options={"reset_mask": …})`, and so does whoever says so in its metadata; any
    other might reset all, or ignore it.
    """
    known = isinstance(environments.unwrapped, SyncVectorEnv | AsyncVectorEnv)
    if not (known or environments.metadata.get("reset_mask")):
        return None

    def restart(rows: np.ndarray, info: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        observation, begun = environments.reset(options={"reset_mask": rows.copy()})
        return observation, begun_info(info, begun, rows)

    return restart


def resets_next_step(environments: VectorEnv) -> bool:
    """Whether the step after the end of an episode is spent on the reset; so it is where nothing is said."""
    return _mode(environments) == AutoresetMode.NEXT_STEP


def self_resetting(environments: VectorEnv) -> VectorEnv:
    """The environments, as they are where they begin ended episodes themselves.

    Raises `PolicysmithError` for those that neither do nor can be told to.
    """
    if _mode(environments) != AutoresetMode.DISABLED:
        return environments
    if restarter(environments) is None:
        raise PolicysmithError(
            f"{type(environments.unwrapped).__name__} leaves ended episodes as they are (autoreset mode DISABLED) and "
            "knows no reset(options={'reset_mask': …}): take another mode, or put 'reset_mask': True into its metadata"
        )
    return SelfResetting(environments)


class SelfResetting(VectorWrapper):
    """Begins ended episodes anew in the same step, as gymnasium's mode SAME_STEP does."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
        self._restart = restarter(env)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step; `final_obs` and `final_info` hold where ended episodes had come to."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        done = np.logical_or(terminated, truncated)
        if not done.any():
            return observation, reward, terminated, truncated, info
        rows = list(iterate(self.env.observation_space, observation))
        finals = np.full(self.num_envs, None, dtype=object)
        for row in np.flatnonzero(done):
            finals[row] = copy.deepcopy(rows[row])  # a vector that does not copy writes over them
        assert self._restart is not None
        observation, begun = self._restart(done, info)
        told = {"final_obs": finals, "_final_obs": done, "final_info": info, "_final_info": done}
        return observation, reward, terminated, truncated, begun | told


def _mode(environments: VectorEnv) -> AutoresetMode:
    return AutoresetMode(environments.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
