"""A T-maze, where memory is needed: a sign at the start says which way to turn at the far end of a corridor.

`python examples/memory_is_needed.py` trains four policies that differ in one word and plots them side by side.
"""

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np

import policysmith
from policysmith.training import plot_learning_curves

TRUNKS = {
    "mlp": {"type": "mlp", "hidden": [64]},
    "lstm": {"type": "lstm", "hidden_size": 64, "forget_bias": 1.0},
    "gtrxl": {"type": "gtrxl", "dim": 64, "layers": 1, "context": 16},
    "mla": {"type": "transformer_memory", "dim": 64, "layers": 1, "context": 16, "attention": {"type": "mla"}},
}


class TMaze(gym.Env):
    """Walk a corridor of `length` steps, then turn left or right as the sign at its start said: reward 1, else 0."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)  # the sign (±1, or 0 from the second step), junction, 1
    action_space = gym.spaces.Discrete(3)  # forward, left, right

    def __init__(self, length=10):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.sign, self.place, self.steps = int(self.np_random.integers(2)), 0, 0
        return self.look(), {}

    def step(self, action):
        self.steps += 1
        turned = self.place == self.length and action != 0
        right = turned and action == 1 + self.sign
        self.place += int(action == 0 and self.place < self.length)
        return self.look(), float(right), turned, self.steps == 4 * self.length, {}

    def look(self):
        sign = 2 * self.sign - 1 if self.steps == 0 else 0
        return np.array([sign, self.place == self.length, 1], np.float32)


gym.register("TMaze-v0", entry_point=TMaze)


def experiment(trunk, total_steps):
    return {
        "seed": 1,
        "environment": {"id": "TMaze-v0", "num_envs": 16},
        "model": {
            "type": "graph",
            "components": {
                "trunk": {"in_keys": "observation", **trunk},
                "policy": {"type": "action_head", "in_keys": "trunk"},
                "state_value": {"type": "value_head", "in_keys": "trunk"},
            },
        },
        "training": {
            "type": "ppo",
            "total_steps": total_steps,
            "rollout_steps": 64,
            "sequence_length": 64,
            "learning_rate": 1.0e-3,
            "entropy_coef": 0.02,
            "solved_at": 0.98,
        },
    }


def main(total_steps=120_000, output="runs"):
    curves, scores = {}, {}
    for name, trunk in TRUNKS.items():
        result = policysmith.train(experiment(trunk, total_steps), progress=False)
        steps, returns = zip(*result.returns, strict=True)
        curves[name], scores[name] = (steps, returns), result.evaluation.mean
        print(f"{name:6} {scores[name]:.2f} of 1.00 after {result.steps:,} steps, {result.seconds:.0f} s", flush=True)
    Path(output).mkdir(parents=True, exist_ok=True)
    picture = plot_learning_curves(Path(output) / "memory_is_needed.png", curves, "T-maze, corridor of 10", goal=1.0)
    print(f"wrote {picture}")
    return scores


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
