"""Environments with one fault each, and what registers them for a test."""

from contextlib import contextmanager

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs import registration


class Plain(gym.Env):
    """Nothing is wrong with it: what it sees, pays and tells is what its subclasses replace."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)
    length = 10

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), self.told()

    def step(self, action):
        self.t += 1
        return self.seen(), self.paid(), False, self.t >= self.length, self.told()

    def seen(self):
        return np.zeros(3, np.float32)

    def paid(self):
        return 1.0

    def told(self):
        return {}


class Old(gym.Env):
    """gym's old interface."""

    observation_space, action_space = Plain.observation_space, Plain.action_space

    def reset(self):
        self.t = 0
        return np.zeros(3, np.float32)

    def step(self, action):
        return np.zeros(3, np.float32), 1.0, False, {}


class FourValues(Plain):
    def step(self, action):
        return self.seen(), 1.0, False, {}


class NoInfo(Plain):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.seen()


class SeedNeeded(Plain):
    def reset(self, seed, options):
        return super().reset(seed=seed)


def seeing(observation, space=None):
    """Plain, but for its observation, a value or a function of the environment."""
    look = observation if callable(observation) else lambda self: observation
    return type("Seeing", (Plain,), {"seen": look} | ({} if space is None else {"observation_space": space}))


def paying(reward):
    return type("Paying", (Plain,), {"paid": reward if callable(reward) else lambda self: reward})


def telling(mask, space=None, **rest):
    actions = {} if space is None else {"action_space": space}
    return type("Telling", (Plain,), {"told": lambda self: {"action_mask": mask}, **actions, **rest})


def broken(at):
    """Raises at a step of each episode, in a function that it calls."""

    class Broken(Plain):
        def paid(self):
            if self.t == at:
                raise ValueError("sensor 7 is offline")
            return 1.0

    return Broken


@contextmanager
def known(kind, name="Wrong-v0", **options):
    """The class under an id, for a while."""
    gym.register(name, kind, **options)
    try:
        yield name
    finally:
        del registration.registry[name]
