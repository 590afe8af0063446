"""Ids and wrappers that can't be made are problems at their place, with the remedy, and no warning on the way."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import policysmith
from policysmith.errors import ConfigError
from policysmith.training.environments import make_environment
from policysmith.training.sections import Environment
from tests.training.environments.wrong_environments import Plain, known

IDS = {
    "MyCamera-v0": r"no environment of that name is registered.*; an environment of your own is .* --plugin FILE",
    "CartPoles-v1": r"did you mean 'CartPole-v1'\?",
    "LunarLander-v2": r"there is no such version of it; take LunarLander-v3",
    "CartPole-v7": "there is no such version of it; take CartPole-v1",
    "Hopper-v2": r"moved to the gymnasium-robotics project.*; the latest version is Hopper-v5",
    "Nowhere/Thing-v0": "no package has registered environments of Nowhere/",
    "my_env:Thing-v0": r"names a module to import.*--plugin FILE; the id is 'Thing-v0' then",
    "not an id!": "is no id of an environment",
}


@pytest.mark.parametrize("name", IDS)
def test_an_id_that_can_not_be_made_says_what_to_do(name):
    with pytest.raises(ConfigError, match=IDS[name]) as caught:
        make_environment(Environment(name))
    assert [problem.path for problem in caught.value.problems] == ["environment.id"]


def test_old_and_unversioned_ids_are_made_without_a_warning():
    assert make_environment(Environment("CartPole-v0")).spec.id == "CartPole-v0"
    assert make_environment(Environment("CartPole")).spec.id == "CartPole-v1"


def test_an_atari_id_names_its_package():
    try:
        import ale_py  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r"environment\.id: ALE/Pong-v5: ale_py is not installed; run: pip"):
            make_environment(Environment("ALE/Pong-v5"))
    else:
        assert make_environment(Environment("ALE/Pong-v5")).spec.id == "ALE/Pong-v5"


class Needy(Plain):
    def __init__(self, error=None):
        if error == "module":
            import a_package_that_nobody_has  # noqa: F401
        raise OSError("no display")


@pytest.mark.parametrize(
    ("options", "told"),
    [({}, r"OSError: no display \(.*test_registered\.py:\d+\)"), ({"error": "module"}, "a_package_that_nobody_has")],
)
def test_whatever_a_constructor_raises_is_a_problem(options, told):
    with (
        known(Needy) as name,
        pytest.raises(ConfigError, match=rf"environment\.id: 'Wrong-v0' can't be made: .*{told}"),
    ):
        make_environment(Environment(name, options=options))


@pytest.mark.parametrize("space", [None, (3,)])
def test_a_space_that_is_none_of_gymnasiums_is_a_problem(space):
    kind = type("Odd", (Plain,), {"observation_space": space})
    with (
        known(kind) as name,
        pytest.raises(ConfigError, match=r"environment\.id: Odd \(.*:\d+\) has the observation_space"),
    ):
        make_environment(Environment(name))


@pytest.mark.parametrize(
    ("wrapper", "place", "told"),
    [
        ({"type": "ReshapeObservation", "shape": "wide"}, "0.shape", "a list of integers, found 'wide'"),
        ({"type": "ReshapeObservation"}, "0.shape", "required option of 'ReshapeObservation' is missing"),
        ({"type": "FrameStackObservation", "stack_size": True}, "0.stack_size", "expected an integer"),
        ({"type": "FrameStackObservation", "stack_size": 0}, "0", "FrameStackObservation can't be put around"),
        ({"type": "ReshapeObservation", "shape": [7]}, "0", "ReshapeObservation can't be put around"),
        ({"type": "RGBImgObsWrapper"}, "0", "can't be put around"),
    ],
)
def test_a_wrapper_that_can_not_be_made_is_a_problem_at_its_place(wrapper, place, told):
    section = Environment("CartPole-v1", wrappers=[wrapper])
    with pytest.raises(ConfigError, match=told) as caught:
        make_environment(section)
    assert caught.value.problems[0].path == f"environment.wrappers.{place}"
    problems = policysmith.check({"environment": {"id": "CartPole-v1", "wrappers": [wrapper]}, "model": "mlp"})
    assert [problem.path for problem in problems] == [f"environment.wrappers.{place}"]


def test_lists_become_what_signatures_say():
    wrappers = [{"type": "ReshapeObservation", "shape": [2, 2]}]
    assert make_environment(Environment("CartPole-v1", wrappers=wrappers)).observation_space.shape == (2, 2)
    low = [{"type": "RescaleObservation", "min_obs": [0, 0, 0], "max_obs": [1, 1, 1]}]
    assert make_environment(Environment("Pendulum-v1", wrappers=low)).observation_space.high.tolist() == [1, 1, 1]


def test_lists_become_tuples_in_an_environments_own_options():
    found = []

    class Sized(Plain):
        def __init__(self, size: tuple[int, int] = (1, 1), names: list[str] | None = None, anything=None):
            found.append((size, names, anything))

    with known(Sized) as name:
        make_environment(Environment(name, options={"size": [2, 3], "names": ["a"], "anything": [1]}))
        with pytest.raises(ConfigError, match=r"environment\.options\.sise: unknown option .*did you mean 'size'"):
            make_environment(Environment(name, options={"sise": 2}))
    assert found == [((2, 3), ["a"], [1])]


def test_an_option_that_a_constructor_needs_is_named():
    class Ported(Plain):
        def __init__(self, port):
            pass

    with known(Ported) as name, pytest.raises(ConfigError, match=r"environment\.options\.port: required option of"):
        make_environment(Environment(name))
    with known(Ported, kwargs={"port": 1}) as name:
        make_environment(Environment(name))


class Masked(gym.Env):
    """sb3-contrib's protocol."""

    observation_space, action_space = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        assert action == self.t % 3
        self.t += 1
        return np.zeros(2, np.float32), 1.0, False, self.t >= 5, {}

    def action_masks(self):
        return np.arange(3) == self.t % 3


def test_masks_by_the_method_action_masks_are_obeyed():
    with known(Masked) as name:
        training = {"type": "ppo", "total_steps": 32, "rollout_steps": 8, "minibatches": 1, "loggers": []}
        config = {
            "environment": {"id": name, "num_envs": 2},
            "model": {"type": "mlp", "hidden": [4]},
            "training": training,
        }
        result = policysmith.train(config, progress=False)
    assert result.evaluation.mean == 5.0 and not result.notes
