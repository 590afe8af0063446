"""Runs that draw from every generator there is, small enough to be stopped, killed and resumed by the dozen."""

import os
import random
import signal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

import policysmith
from policysmith.registry import register
from tests.training.offline_data import REMEMBERING


class Frail(gym.Env):
    """Episodes of 7 steps whose observations are drawn; it raises, or kills its process, at the step `ends`."""

    observation_space, action_space = Box(-1, 1, (3,), np.float32), Discrete(2)

    def __init__(self, ends: int = 10**9, kill: bool = False, foreign: bool = False):
        self.ends, self.kill, self.foreign, self.steps, self.time = ends, kill, foreign, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._seen(), {}

    def step(self, action):
        self.steps, self.time = self.steps + 1, self.time + 1
        if self.steps == self.ends:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the simulator died")
        return self._seen(), float(action), self.time == 7, False, {}

    def _seen(self):
        low = random.SystemRandom().random() if self.foreign else self.np_random.random()
        return np.full(3, low, np.float32)


gym.register("Frail-v0", entry_point=Frail)


def frail(vectorization="sync", **options):
    return {
        "environment": {"id": "Frail-v0", "num_envs": 2, "vectorization": vectorization, "options": options},
        "model": {"type": "mlp", "hidden": [8]},
        "training": {"type": "ppo", "total_steps": 128, "rollout_steps": 16, "minibatches": 2, "epochs": 1},
        "evaluation": {"episodes": 2},
    }


class Counting:
    """Ends the training after so many reports, over all runs; draws from every global generator."""

    def __init__(self, limit: int = 10**9):
        self.limit, self.count = limit, 0

    def __call__(self, report):
        self.count += 1
        random.random(), np.random.random(), torch.rand(1)
        return self.count == self.limit

    def state(self):
        return {"count": self.count}

    def restore(self, state):
        self.count = state["count"]


def train(config, *overrides, **options):
    register("counting", slot="callback")(Counting)
    return policysmith.train(config, list(overrides), progress=False, evaluate=False, **options)


def weights(policy):
    return torch.cat([tensor.flatten().double() for tensor in policy.state_dict().values()])


def playing(model, **section):
    """CartPole with all that a checkpoint has to hold: an average, statistics, a schedule, a callback's count."""
    register("counting", slot="callback")(Counting)
    return {
        "seed": 3,
        "environment": {"id": "CartPole-v1", "num_envs": 3, **section},
        "observation": {"normalize": True},
        "model": model,
        "training": {
            "type": "ppo", "total_steps": 288, "rollout_steps": 16, "minibatches": 2, "epochs": 2,
            "learning_rate": {"type": "linear", "start": 1e-2, "end": 0.0}, "ema": 0.9, "callbacks": ["counting"],
        },
        "evaluation": {"episodes": 2, "every": 100},
    }  # fmt: skip


def recurrent(**section):
    return playing(REMEMBERING, **section)


def self_playing():
    return {
        "seed": 3,
        "environment": {"id": "tictactoe_v3", "num_envs": 4},
        "model": {"type": "mlp", "hidden": [8]},
        "training": {"type": "ppo", "total_steps": 320, "rollout_steps": 16, "minibatches": 2, "epochs": 1},
        "self_play": {"pool": 1, "snapshot_every": 1, "past_share": 0.5, "random_share": 0.3},
        "evaluation": {"episodes": 2},
    }


RUNS = {
    "mlp-drawing": lambda: {**frail(), "seed": 3},
    "lstm-next-step": lambda: recurrent(autoreset="next_step"),
    "lstm-async": lambda: recurrent(vectorization="async"),
    "games": self_playing,
}
