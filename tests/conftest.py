"""Shared set-up: one torch thread, registered types, small policies."""

import gymnasium as gym
import hypothesis
import numpy as np
import pytest
import torch

import policysmith.api  # noqa: F401 - registers every type
from tests.thinning import quick

torch.set_num_threads(1)
hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of the code
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="only what `make test-quick` runs; see tests/thinning.py")


@pytest.hookimpl(trylast=True)  # after -m has taken out the slow ones: the first test that is left counts as the first
def pytest_collection_modifyitems(config, items):
    if config.getoption("--quick"):
        kept = quick(item.nodeid for item in items)
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
        items[:] = [item for item in items if item.nodeid in kept]


class Countdown(gym.Env):
    """Observation = steps taken; reward 1; truncated after `length` steps, or terminated if `ends`."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, length: int = 3, ends: bool = False) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.length, self.ends, self.steps = length, ends, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        over = self.steps >= self.length
        return np.full(1, self.steps, np.float32), 1.0, over and self.ends, over and not self.ends, {}


class MaskedBandit(gym.Env):
    """One step; the legal actions (in the info) change; an illegal action raises."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0, 1, (4,), np.float32)
        self.action_space = gym.spaces.Discrete(4)
        self.legal = np.ones(4, np.int8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._next()

    def step(self, action):
        if not self.legal[action]:
            raise ValueError(f"illegal action {action}")
        reward = float(action == np.flatnonzero(self.legal)[0])
        observation, info = self._next()
        return observation, reward, True, False, info

    def _next(self):
        self.legal = (self.np_random.random(4) < 0.5).astype(np.int8)
        self.legal[self.np_random.integers(4)] = 1
        return self.legal.astype(np.float32), {"action_mask": self.legal.copy()}


gym.register("policysmith/Countdown-v0", entry_point=Countdown)
gym.register("policysmith/MaskedBandit-v0", entry_point=MaskedBandit)


@pytest.fixture
def cartpole_config():
    return {
        "format": 1,
        "seed": 1,
        "environment": {"id": "CartPole-v1", "num_envs": 4},
        "model": {"type": "mlp", "hidden": [16, 16]},
        "training": {"type": "ppo", "total_steps": 1024, "rollout_steps": 64},
        "evaluation": {"episodes": 4},
    }
