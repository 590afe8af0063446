"""Spaces as data: the section `spaces` stands in for an environment, and nowhere else."""

import numpy as np
import pytest
from gymnasium import spaces

import policysmith
from policysmith.errors import ConfigError
from policysmith.registry import default_registry

BOX = {"type": "box", "shape": [4]}
TWO = {"type": "discrete", "n": 2}


def space(data):
    return default_registry.decode("space", data).build()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (BOX, spaces.Box(-np.inf, np.inf, (4,))),
        ({"type": "box", "shape": []}, spaces.Box(-np.inf, np.inf, ())),
        ({"type": "box", "shape": [2], "low": -1, "high": 0.5}, spaces.Box(-1, 0.5, (2,))),
        ({"type": "box", "shape": [2], "low": [-1, -2]}, spaces.Box(np.float32([-1, -2]), np.inf, (2,))),
        ({"type": "box", "shape": [8, 8, 3], "dtype": "uint8"}, spaces.Box(0, 255, (8, 8, 3), np.uint8)),
        ({"type": "box", "shape": [1], "low": 0, "high": 9, "dtype": "int64"}, spaces.Box(0, 9, (1,), np.int64)),
        ({"type": "box", "shape": [2], "dtype": "float64"}, spaces.Box(-np.inf, np.inf, (2,), np.float64)),
        (TWO, spaces.Discrete(2)),
        ({"type": "discrete", "n": 3, "start": -1}, spaces.Discrete(3, start=-1)),
        ({"type": "multi_discrete", "nvec": [2, 3]}, spaces.MultiDiscrete([2, 3])),
        ({"type": "multi_binary", "n": 5}, spaces.MultiBinary(5)),
        ({"type": "tuple", "spaces": [TWO, BOX]}, spaces.Tuple([spaces.Discrete(2), space(BOX)])),
        (
            {"type": "dict", "spaces": {"z": BOX, "a": {"type": "dict", "spaces": {"x": TWO}}}},
            spaces.Dict([("z", space(BOX)), ("a", spaces.Dict(x=spaces.Discrete(2)))]),
        ),
    ],
    ids=str,
)
def test_a_description_is_the_space(data, expected):
    found = space(data)
    assert found == expected and type(found) is type(expected)
    if isinstance(found, spaces.Dict):
        assert list(found) == list(expected), "in the order that is written"
    assert space(default_registry.decode("space", data).encode()) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"type": "box", "shape": [2], "low": 1, "high": 0}, "low must not exceed high, found low 1.0 and high 0.0"),
        ({"type": "box", "shape": [2], "low": [1, 2, 3]}, r"low must be a number or nested lists of shape \[2\]"),
        ({"type": "box", "shape": [2], "high": ["a", 1]}, r"high must be a number or nested lists of shape \[2\]"),
        ({"type": "box", "shape": [2], "dtype": "uint8", "low": -1}, "low has values that uint8 does not hold"),
        ({"type": "dict", "spaces": {"x": {"type": "box", "shape": [1], "low": 1, "high": 0}}}, "in 'x': low must not"),
    ],
    ids=str,
)
def test_bounds_that_make_no_space_are_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        space(data)


def test_the_section_stands_in_for_an_environment(tmp_path):
    config = {"model": {"type": "mlp", "hidden": [8]}, "spaces": {"observation": BOX, "action": TWO}}
    assert policysmith.check(config) == []
    policy = policysmith.build(config)
    assert (policy.observations.space, policy.actions.space) == (space(BOX), space(TWO))
    policysmith.save(policy, tmp_path / "p")
    assert policysmith.describe(tmp_path / "p") == policysmith.describe(config)


def test_an_environment_and_passed_spaces_hold_instead():
    config = {"model": "mlp", "spaces": {"observation": {"type": "box", "shape": [7]}, "action": TWO}}
    assert policysmith.build({**config, "environment": {"id": "CartPole-v1"}}).observations.space.shape == (4,)
    passed = policysmith.build(config, observation_space=spaces.Box(-1, 1, (3,)))
    assert passed.observations.space.shape == (3,) and passed.actions.space == spaces.Discrete(2)


def test_a_space_that_cannot_be_made_is_a_problem_with_its_place(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(
        "model: mlp\nspaces:\n  observation: {type: box, shape: [2], low: 1, high: 0}\n"
        "  action: {type: box, shape: [2], low: [1, 2, 3]}\n"
    )
    lines = [str(problem).removeprefix(f"{path}:").split(": ")[0] for problem in policysmith.check(path)]
    assert lines == ["3:3  spaces.observation", "4:3  spaces.action"]


def test_wiring_is_checked_against_the_described_spaces(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(
        "spaces: {observation: {type: box, shape: [4]}, action: {type: discrete, n: 2}}\nmodel:\n  type: graph\n"
        "  components:\n    trunk: {type: mlp, in_keys: observation, activation: reluu}\n"
        "    policy: {type: action_head, in_keys: trnk}\n    value: {type: value_head, in_keys: trunk}\n"
    )
    lines = [str(problem).removeprefix(f"{path}:").split(":")[0] for problem in policysmith.check(path)]
    assert lines == ["5", "6"]


def test_without_any_spaces_the_remedy_is_told():
    (problem,) = policysmith.check({"model": "mlp"})
    assert str(problem).startswith("environment: required, unless spaces are given")
