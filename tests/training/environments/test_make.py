import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from policysmith.errors import ConfigError
from policysmith.training.environments.make import make_environment, make_vector, single_spaces
from policysmith.training.sections import Environment


def test_an_unknown_environment_is_a_config_error_with_its_path():
    with pytest.raises(ConfigError, match=r"environment\.id: 'CartPoles-v1' can't be made"):
        make_environment(Environment("CartPoles-v1"))


def test_an_id_that_would_import_a_module_is_refused():
    with pytest.raises(ConfigError, match="names a module to import"):
        make_environment(Environment("os:CartPole-v1"))


def test_wrappers_come_from_the_allow_list_only():
    with pytest.raises(ConfigError, match=r"unknown wrapper 'TimeLimits' \(did you mean 'TimeLimit'\?\)"):
        make_environment(Environment("CartPole-v1", wrappers=["TimeLimits"]))
    with pytest.raises(ConfigError, match=r"wrappers\.0\.stak_size: unknown option .*did you mean 'stack_size'"):
        make_environment(Environment("CartPole-v1", wrappers=[{"type": "FrameStackObservation", "stak_size": 4}]))
    stacked = Environment("CartPole-v1", wrappers=[{"type": "FrameStackObservation", "stack_size": 4}])
    assert single_spaces(stacked)[0].shape == (4, 4)


def test_options_reach_the_environment():
    section = Environment("FrozenLake-v1", options={"is_slippery": False, "map_name": "8x8"})
    assert single_spaces(section)[0] == spaces.Discrete(64)
    with pytest.raises(ConfigError, match="slipery"):
        make_environment(Environment("FrozenLake-v1", options={"slipery": False}))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_vectors_reset_as_asked(vectorization, autoreset):
    environments = make_vector(Environment("CartPole-v1", 2, vectorization, autoreset))
    try:
        environments.reset(seed=0)
        assert environments.metadata["autoreset_mode"].name.lower() == autoreset
        for _ in range(60):
            environments.step(np.ones(2, int))
    finally:
        environments.close()


def test_envpool_without_the_package_names_the_extra():
    try:
        import envpool  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"policysmith\[envpool\]"):
            make_vector(Environment("CartPole-v1", vectorization="envpool"))
    else:
        assert make_vector(Environment("CartPole-v1", vectorization="envpool")).num_envs == 8


class Guessing(gym.Env):
    """Its observation is drawn from its own action space."""

    observation_space, action_space = spaces.Box(0, 1000, (1,), np.float32), spaces.Discrete(1000)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.float32([self.action_space.sample()]), {}

    def step(self, action):
        return np.float32([self.action_space.sample()]), 0.0, False, False, {}


def test_the_seed_of_a_run_reaches_what_an_environment_draws_from_its_spaces():
    gym.register("Guessing-v0", entry_point=Guessing)

    def drawn():
        vector = make_vector(Environment("Guessing-v0", num_envs=2), replayable=True)
        first, _ = vector.reset(seed=5)
        return np.concatenate([first, *(vector.step(np.zeros(2, int))[0] for _ in range(3))])

    before = drawn()
    Guessing.action_space = spaces.Discrete(1000)  # as in another process
    assert np.array_equal(drawn(), before)
    assert len(np.unique(before)) > 4
