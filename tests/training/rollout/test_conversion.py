"""What is done at every step between environments and a policy, the short way and the long one."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

import policysmith
from policysmith.errors import ShapeError
from policysmith.training.rollout.conversion import action_writer, preparer

BOX = spaces.Box(-1, 1, (3,), np.float32)
OBSERVATIONS = {
    "float": (BOX, np.arange(6, dtype=np.float32).reshape(2, 3)),
    "double": (BOX, np.arange(6, dtype=np.float64).reshape(2, 3)),
    "single": (BOX, np.arange(3, dtype=np.float32)),
    "scalar": (spaces.Box(-1, 1, (1,), np.float32), np.ones((2, 1), np.float32)),
    "choices": (spaces.Discrete(4), np.array([1, 3])),
    "dict": (spaces.Dict(a=BOX, b=spaces.Discrete(2)), {"a": np.ones((2, 3), np.float32), "b": np.array([0, 1])}),
}


@pytest.mark.parametrize("case", OBSERVATIONS)
def test_observations_become_what_prepare_makes_of_them(case):
    space, observation = OBSERVATIONS[case]
    policy = policysmith.build({"model": "mlp"}, space, spaces.Discrete(2))
    found, expected = (f(observation) for f in (preparer(policy), policy.prepare))
    leaves = (policy.observations.read(x) for x in (found, expected))
    for mine, theirs in zip(*leaves, strict=True):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)


def test_an_observation_that_does_not_fit_is_told_of_as_prepare_does():
    policy = policysmith.build({"model": "mlp"}, BOX, spaces.Discrete(2))
    with pytest.raises(ShapeError, match=r"has shape \(2, 4\), expected \(…, 3\)"):
        preparer(policy)(np.zeros((2, 4), np.float32))


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), BOX], ids=["one", "many", "box"])
def test_actions_become_what_to_environment_makes_of_them(space):
    policy = policysmith.build({"model": "mlp"}, spaces.Box(-1, 1, (4,), np.float32), space)
    action = policy.acting()(torch.randn(5, 4))[0]
    assert np.array_equal(action_writer(policy)(action), policy.actions.to_environment(action))
