"""An environment with numbers that are not finite in known places, and what trains in it."""

import gymnasium as gym
import numpy as np

REMEMBERING = {
    "type": "graph",
    "components": {
        "memory": {"type": "lstm", "in_keys": "observation", "hidden_size": 8},
        "policy": {"type": "action_head", "in_keys": "memory"},
        "state_value": {"type": "value_head", "in_keys": "memory"},
    },
}


class Ill(gym.Env):
    """Observation (episode, step, 1), reward 1, `length` steps; in every `every`-th episode step `at` has a bad
    `reward`, `observation`, both or a `final` observation. Step 0 is the reset."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, kind="reward", at=4, bad=float("nan"), length=9, every=3, ends=False):
        self.kind, self.at, self.bad, self.length, self.every, self.ends = kind, at, bad, length, every, ends
        self.episode, self.t = -1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.episode = 0, self.episode + 1
        return self._seen(), {}

    def step(self, action):
        self.t += 1
        reward = self.bad if self._is_bad("reward") else 1.0
        done = self.t >= self.length
        return self._seen(), reward, done and self.ends, done and not self.ends, {}

    def _seen(self):
        return np.array([self.episode, self.bad if self._is_bad("observation") else self.t, 1.0], np.float32)

    def _is_bad(self, what):
        return self.kind in (what, "both") and self.t == self.at and self.episode % self.every == 0


gym.register("policysmith/Ill-v0", entry_point=Ill)


def ill_config(model="mlp", training=(), **options):
    """PPO in two copies of it; `autoreset` and `vectorization` go to the section, the rest to the environment."""
    section = {name: options.pop(name) for name in ("autoreset", "vectorization") if name in options}
    return {
        "seed": 0,
        "environment": {"id": "policysmith/Ill-v0", "num_envs": 2, "options": options, **section},
        "observation": {"normalize": True},
        "model": model if isinstance(model, dict) else {"type": model, "hidden": [8]},
        "training": {"type": "ppo", "total_steps": 256, "rollout_steps": 32, "loggers": [], **dict(training)},
        "evaluation": {"episodes": 2},
    }
