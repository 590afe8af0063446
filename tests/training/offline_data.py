"""Small recorded tasks for tests of offline training."""

import gymnasium as gym
import numpy as np

from policysmith.training.datasets import from_arrays

BOX = gym.spaces.Box(-5, 5, (3,), np.float32)
ACTIONS = {
    "discrete": gym.spaces.Discrete(3, start=2),
    "multi_discrete": gym.spaces.MultiDiscrete([2, 3]),
    "multi_binary": gym.spaces.MultiBinary(2),
    "box": gym.spaces.Box(-1, 1, (2,), np.float32),
    "dict": gym.spaces.Dict(choice=gym.spaces.Discrete(2), force=gym.spaces.Box(-1, 1, (1,), np.float64)),
}
REMEMBERING = {
    "type": "graph",
    "components": {
        "memory": {"type": "lstm", "in_keys": "observation", "hidden_size": 8},
        "policy": {"type": "action_head", "in_keys": "memory"},
        "state_value": {"type": "value_head", "in_keys": "memory"},
    },
}


def walk(kind="discrete", episodes=12, seed=0, final=True):
    """Random observations; the action tells the signs of the first two numbers; the reward is the third."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 9, episodes)
    seen = rng.normal(size=(lengths.sum(), 3)).astype(np.float32)
    signs = (seen[:, :2] > 0).astype(np.int64)
    actions = {
        "discrete": {"action": 2 + signs.sum(1)},
        "multi_discrete": {"action": signs},
        "multi_binary": {"action": signs.astype(np.int8)},
        "box": {"action": (signs * 1.6 - 0.8).astype(np.float32)},
        "dict": {"action.choice": signs[:, 0], "action.force": signs[:, 1:] * 1.6 - 0.8},
    }[kind]
    ends = np.zeros(len(seen), bool)
    ends[lengths.cumsum() - 1] = True
    arrays = {"observation": seen, **actions, "reward": seen[:, 2], "terminated": ends, "lengths": lengths}
    last = {"last_observation": rng.normal(size=(episodes, 3)).astype(np.float32)} if final else {}
    return from_arrays(arrays | last, BOX, ACTIONS[kind])


def config(objective="bc", model=None, **training):
    return {
        "seed": 3,
        "model": model or {"type": "mlp", "hidden": [16]},
        "training": {"type": "offline", "objective": objective, "updates": 30, "batch_size": 16, **training},
    }


def flowing(**options):
    """A model of a trunk and a head that makes actions by a flow."""
    return {
        "type": "graph",
        "components": {
            "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [16]},
            "policy": {"type": "flow_head", "in_keys": ["trunk", "observation"], "hidden": [32]} | options,
            "state_value": {"type": "value_head", "in_keys": "trunk"},
        },
    }
