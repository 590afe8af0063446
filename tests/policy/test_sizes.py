"""A configuration that asks for more than there is gets one sentence with the number, before anything is made."""

from __future__ import annotations

from typing import Any

import pytest

import policysmith
from policysmith.config.limits import Limits, machine_memory
from policysmith.errors import ConfigError

VECTOR = {"type": "box", "shape": [6]}
WINDOW = {"type": "box", "shape": [4, 6]}
BOARD = {"type": "box", "shape": [4, 8, 8]}
TWO = {"type": "discrete", "n": 2}
HEADS = {"policy": {"type": "action_head", "in_keys": "body"}, "state_value": {"type": "value_head", "in_keys": "body"}}


def spaces(observation: Any, model: Any, action: Any = TWO, **more: Any) -> dict[str, Any]:
    return {"spaces": {"observation": observation, "action": action}, "model": model, **more}


def graph(**body: Any) -> dict[str, Any]:
    return {"type": "graph", "components": {"body": {"in_keys": "observation", **body}, **HEADS}}


CARTPOLE = {"environment": {"id": "CartPole-v1"}, "model": "mlp"}
TASKS = {"type": "dict", "spaces": {"task": {"type": "discrete", "n": 10**6}, "observation": VECTOR}}
HUGE: dict[str, tuple[dict[str, Any], str]] = {
    "layers": (spaces(WINDOW, {"type": "transformer", "layers": 10**6}), "GiB for weights"),
    "layers with a context": (
        spaces(VECTOR, {"type": "transformer", "layers": 10**6, "context": 4}),
        "2,000,001 tensors",
    ),
    "experts": (
        spaces(WINDOW, {"type": "transformer", "feedforward": {"type": "moe", "experts": 10**7}}),
        "TiB for weights",
    ),
    "recurrent layers": (spaces(VECTOR, graph(type="lstm", num_layers=10**6)), "GiB for weights"),
    "narrow layers": (spaces(VECTOR, graph(type="gru", num_layers=10**6, hidden_size=1)), "limits.modules"),
    "residual blocks": (spaces(BOARD, {"type": "resnet", "tower_depth": 10**6}), "TiB for weights"),
    "dense blocks": (spaces(VECTOR, graph(type="swish_residual_mlp", blocks=10**7)), "limits.modules"),
    "a task each": (spaces(TASKS, "moe"), "TiB for weights"),
    "hidden": (spaces(VECTOR, {"type": "mlp", "hidden": [10**9, 10**9]}), "EiB for weights"),
    "hidden beyond 64 bits": (spaces(VECTOR, {"type": "mlp", "hidden": [10**10, 10**10]}), "more than 8 EiB"),
    "a box": (spaces({"type": "box", "shape": [10**6, 10**6]}, "mlp"), "TiB for its bounds"),
    "a box of actions": (spaces(VECTOR, "mlp", {"type": "box", "shape": [10**12]}), "TiB for its bounds"),
    "choices": (spaces(VECTOR, "mlp", {"type": "discrete", "n": 10**12}), "TiB for one row"),
    "switches": (spaces(VECTOR, "mlp", {"type": "multi_binary", "n": 10**12}), "TiB for one row"),
    "categories": (spaces({"type": "discrete", "n": 10**12}, "mlp"), "TiB for one row"),
    "environments": ({**CARTPOLE, "environment": {"id": "CartPole-v1", "num_envs": 10**9}}, "limits.environments"),
    "steps": ({**CARTPOLE, "training": {"type": "ppo", "rollout_steps": 10**12}}, "TiB for one rollout"),
    "a context": (spaces(VECTOR, {"type": "transformer", "context": 10**11}), "keeps between two steps"),
}


@pytest.mark.parametrize("name", HUGE)
def test_check_tells_what_is_needed_and_what_there_is(name):
    config, words = HUGE[name]
    found = policysmith.check(config)
    assert words in "\n".join(map(str, found)), found
    with pytest.raises(ConfigError) as caught:
        policysmith.build(config)
    assert [str(problem) for problem in caught.value.problems] == [str(problem) for problem in found]


def test_training_is_refused_in_the_same_words():
    config = {"environment": {"id": "CartPole-v1", "num_envs": 10**9}, "model": "mlp", "training": "ppo"}
    with pytest.raises(ConfigError, match=r"environment\.num_envs: 1,000,000,000 copies"):
        policysmith.train(config, evaluate=False, progress=False)


def test_a_graph_alone_a_board_factory_and_a_transformer_of_names_are_refused_too():
    stack = {"type": "transformer_stack", "in_keys": "x", "layers": 10**6, "dim": 128}
    with pytest.raises(ConfigError, match="for weights"):
        policysmith.build_model({"inputs": {"x": [4, 6]}, "components": {"stack": stack}})
    with pytest.raises(ConfigError, match="for weights"):
        policysmith.create_model(
            {"model_type": "resnet", "obs_shape": (5, 6, 7), "num_actions": 11, "tower_depth": 10**6}
        )


def test_a_thousand_layers_are_no_problem():
    assert policysmith.check(spaces(WINDOW, {"type": "transformer", "layers": 1_000})) == []


def test_a_file_says_its_own_limits():
    config = spaces(VECTOR, {"type": "mlp", "hidden": [1_000, 1_000]})
    assert policysmith.check(config) == []
    (problem,) = policysmith.check({**config, "limits": {"memory": "1MiB"}})
    assert "MiB for weights, there are 1.0 MiB (limits.memory)" in problem.message
    (problem,) = policysmith.check({**config, "limits": {"modules": 3}})
    assert "allowed are 3 (limits.modules)" in problem.message
    wide = spaces(VECTOR, {"type": "mlp", "hidden": [10**6, 10**6]})
    assert policysmith.check(wide) and policysmith.check({**wide, "limits": {"memory": "64 TiB"}}) == []


def test_a_size_that_is_none_is_a_problem_at_its_place():
    (problem,) = policysmith.check(spaces(VECTOR, "mlp", limits={"memory": "a lot"}))
    assert problem.path == "limits.memory" and "expected a size of memory such as 4GB" in problem.message


def test_what_a_machine_has_is_known():
    assert machine_memory() is None or machine_memory() > 2**28
    assert Limits().memory_problem(1, "weights") is None
