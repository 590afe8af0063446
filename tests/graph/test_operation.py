"""Operations and constants in our own grammar: `args` says how a component calls its module."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from policysmith.errors import ConfigError
from policysmith.graph import build_model
from policysmith.graph.spec import decode_components
from policysmith.registry import default_registry

X, GOAL = torch.linspace(-1, 1, 12).view(3, 4), torch.linspace(0, 1, 9).view(3, 3)
COMPONENTS: dict[str, Any] = {
    "h": {"type": "nn.Linear", "in_keys": "x", "out_features": 3},
    "small": {"type": "op", "op": "mul", "args": ["$h", 0.5]},
    "both": {"type": "op", "op": "cat", "args": [["$small", "$goal"], -1]},
    "pair": {"type": "op", "op": "stack", "args": {"tensors": ["$small", "$goal"], "dim": 1}},
    "sum": {"type": "op", "op": "add", "in_keys": ["small", "goal"]},
}


def built(registry=None, **components: Any):
    return build_model({"inputs": {"x": [4], "goal": [3]}, "components": {**COMPONENTS, **components},
                        "outputs": ["both", "pair", "sum"]}, registry, seed=0)  # fmt: skip


def problems(**components: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        built(**components)
    return str(caught.value)


def test_an_operation_is_called_with_edges_and_constants():
    model = built()
    small = 0.5 * model.graph_modules["h"](X)
    expected = torch.cat([small, GOAL], -1), torch.stack([small, GOAL], 1), small + GOAL
    for run in (model, model, model.slow, model.bound()):
        for found, wanted in zip(run(X, GOAL), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert [model.plan.edges[name].shape for name in ("both", "pair")] == [(6,), (2, 3)]
    assert "cat(" in model.code and "m1(" not in model.code


def test_it_survives_copies_and_the_round_trip():
    model = built()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(a, b) for a, b in zip(other(X, GOAL), model(X, GOAL), strict=True))
    graph = decode_components(COMPONENTS, default_registry)
    assert decode_components(graph.encode(), default_registry) == graph
    assert graph.encode()["both"]["args"] == [["$small", "$goal"], -1]


def test_constants_of_different_kinds_are_different_calls():
    calls = [decode_components({"a": {"type": "op", "op": "add", "args": ["$x", value]}}, default_registry)
             for value in (1, 1.0, True)]  # fmt: skip
    assert calls[0] != calls[1] != calls[2] != calls[0]


def test_any_module_takes_constants_and_a_dollar_can_be_escaped():
    registry = default_registry.copy()
    seen = []

    class Scaled(nn.Module):
        """A module that takes more than tensors."""

        def forward(self, x, by: float, note: str = "", flip: bool = False):
            seen.append(note)
            return -by * x if flip else by * x

    registry.register("scaled")(Scaled)
    model = build_model(
        {
            "inputs": {"x": [4]},
            "components": {"y": {"type": "scaled", "args": {"x": "$x", "by": 2, "note": "$$5", "flip": True}}},
        },
        registry,
    )
    torch.testing.assert_close(model(X), -2 * X)
    assert set(seen) == {"$5"}


def test_an_operation_in_a_policy_is_stored_and_swapped_around(tmp_path):
    import policysmith

    config = {
        "environment": {"id": "CartPole-v1"},
        "model": {
            "type": "graph",
            "components": {
                "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [8]},
                "scaled": {"type": "op", "op": "mul", "args": ["$trunk", 0.1]},
                "policy": {"type": "action_head", "in_keys": "scaled"},
                "state_value": {"type": "value_head", "in_keys": "scaled"},
            },
        },
    }
    policy = policysmith.build(config, seed=0).eval()
    logits, _ = policy(X)
    torch.testing.assert_close(logits, F.linear(0.1 * policy.components["trunk"].module(X),
                               *policy.components["policy"].parameters()), rtol=0, atol=1e-6)  # fmt: skip
    policysmith.save(policy, tmp_path / "p")
    assert torch.equal(policysmith.load(tmp_path / "p")(X)[0], logits)


@pytest.mark.parametrize(
    ("component", "words"),
    [
        ({"type": "op", "op": "ad", "args": ["$x", 1]}, ["unknown operation 'ad'", "did you mean 'add'?"]),
        ({"type": "op", "op": "add", "args": [1, 2]}, ["bad.args", "reads no edge"]),
        ({"type": "op", "op": "add", "args": "$x"}, ["bad.args", "expected a list of arguments"]),
        ({"type": "op", "op": "add", "args": ["$x", 1], "in_keys": "x"}, ["bad.args", "in_keys"]),
        ({"type": "op", "op": "add", "args": ["$y", 1]}, ["nothing produces 'y'"]),
        ({"type": "op", "op": "getitem", "args": ["$x", 0]}, ["lost the batch axis"]),
        ({"type": "lstm", "hidden_size": 3, "args": ["$x"]}, ["joins what it reads"]),
        ({"type": "mlp", "hidden": [3], "args": ["$x"]}, ["joins what it reads", "in_keys"]),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(component, words):
    found = problems(bad=component)
    assert all(word in found for word in words), found
