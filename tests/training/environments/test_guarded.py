"""What goes wrong inside an environment names its own line, the copy and the step, in worker processes too."""

import re

import numpy as np
import pytest
from gymnasium import spaces

import policysmith
from policysmith.errors import EnvironmentFailure
from policysmith.training.environments import close_vector, make_vector
from policysmith.training.sections import Environment
from tests.training.environments.wrong_environments import Plain, broken, known

MODEL = {"model": {"type": "mlp", "hidden": [4]}}


class Late(Plain):
    """Right for some steps, so that no gate sees what comes."""

    def __init__(self, fault, at=12):
        self.fault, self.at = fault, at

    def late(self):
        return getattr(self, "t", 0) >= self.at

    def seen(self):
        if self.late() and self.fault == "shape":
            return np.zeros(4, np.float32)
        return None if self.late() and self.fault == "none" else np.zeros(3, np.float32)

    def paid(self):
        return np.array([1.0]) if self.late() and self.fault == "reward" else 1.0

    length = 100


def stepped(name, vectorization, steps=40, **options):
    vector = make_vector(Environment(name, 2, vectorization, options=options))
    try:
        vector.reset(seed=0)
        for _ in range(steps):
            vector.step(np.zeros(2, int))
    finally:
        close_vector(vector)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_exception_keeps_its_own_line(vectorization, capfd, recwarn):
    with known(broken(4)) as name, pytest.raises(EnvironmentFailure) as caught:
        stepped(name, vectorization)
    told = (
        r"Broken\.step raised ValueError: sensor 7 is offline \(.*wrong_environments\.py:\d+; environment \d, step 4 of"
    )
    assert re.match(told, str(caught.value))
    assert "sensor 7" in str(caught.value.__cause__)
    assert capfd.readouterr().err == "" and not recwarn.list


@pytest.mark.parametrize(
    ("fault", "told"),
    [("shape", r"the observation of shape \(4,\)"), ("none", "the observation None"), ("reward", r"a reward of shape")],
)
def test_what_does_not_fit_later_is_told_as_by_the_gate(fault, told):
    with known(Late) as name, pytest.raises(EnvironmentFailure, match=rf"Late\.step \(.*\) gave {told}.*step 12 of"):
        stepped(name, "sync", fault=fault)


def test_a_worker_tells_of_what_does_not_fit():
    with known(Late) as name, pytest.raises(EnvironmentFailure, match=r"gave the observation of shape \(4,\).*step 12"):
        stepped(name, "async", fault="shape")


def test_a_run_ends_with_the_sentence_and_loses_nothing(tmp_path):
    training = {"type": "ppo", "total_steps": 640, "rollout_steps": 8, "minibatches": 1, "loggers": []}
    with (
        known(Late) as name,
        pytest.raises(EnvironmentFailure, match=r"Late\.step .*environment 0, step 12") as caught,
    ):
        section = {"id": name, "num_envs": 2, "options": {"fault": "none"}}
        policysmith.train(
            {"environment": section, **MODEL, "training": training}, output=tmp_path / "run", progress=False
        )
    assert "what 16 steps taught is saved" in caught.value.__notes__[0]


class Reusing(Plain):
    """Writes each observation over the one before."""

    observation_space = spaces.Box(0, 100, (1,), np.float32)
    length = 3

    def __init__(self):
        self.buffer = np.zeros(1, np.float32)

    def seen(self):
        self.buffer[0] = self.t + 1
        return self.buffer


def test_the_last_observation_is_kept_where_an_environment_writes_over_it():
    with known(Reusing) as name:
        vector = make_vector(Environment(name, 1))
        vector.reset(seed=0)
        *_, info = [vector.step(np.zeros(1, int)) for _ in range(3)][-1]
        assert info["final_obs"][0].tolist() == [4.0]
