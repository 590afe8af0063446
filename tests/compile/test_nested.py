"""A graph as one component: what it computes, what it is called, and what is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from policysmith.errors import ConfigError
from policysmith.graph import NestedGraph, build_model
from policysmith.graph.source import decode_graph
from policysmith.registry import default_registry

INPUTS = {"x": [4], "goal": [3]}
NATIVE = {
    "components": {
        "both": {"type": "join", "in_keys": ["a", "b"]},
        "out": {"type": "nn.Linear", "in_keys": "both", "out_features": 2},
    }
}
V1 = {
    "schema_version": 1,
    "model": {
        "graph": {
            "inputs": ["a", "b"],
            "modules": {"body": {"_type_": "nn.Linear", "in_features": 7, "out_features": 2}},
            "nodes": [
                {"name": "both", "call": "op:cat", "args": [["$a", "$b"]], "kwargs": {"dim": 1}},
                {"name": "y", "call": "module:body", "args": ["$both"]},
            ],
            "outputs": {"result": "$y", "joined": "$both"},
        }
    },
}


def outer(config, in_keys=("x", "goal"), seed: int = 0):
    keys = list(in_keys) if not isinstance(in_keys, dict) else in_keys
    return build_model(
        {"inputs": INPUTS, "components": {"net": {"type": "graph_model", "config": config, "in_keys": keys}}}, seed=seed
    )


def problems(config, **keys) -> str:
    with pytest.raises(ConfigError) as caught:
        outer(config, **keys)
    return str(caught.value)


def test_inputs_go_by_name_or_in_order():
    x, goal = torch.randn(5, 4), torch.randn(5, 3)
    ordered, named = outer(NATIVE), outer(NATIVE, {"b": "goal", "a": "x"})
    swapped = outer(NATIVE, {"a": "goal", "b": "x"})
    assert torch.equal(ordered(x, goal), named(x, goal))
    swapped.load_state_dict(ordered.state_dict())
    assert torch.allclose(swapped(x, goal), ordered.graph_modules["net"](goal, x))


def test_several_results_are_out_keys_in_order():
    component = {"type": "graph_model", "config": V1, "in_keys": ["x", "goal"], "out_keys": ["y", "both"]}
    model = build_model({"inputs": INPUTS, "components": {"net": component}, "outputs": ["both", "y"]}, seed=0)
    x, goal = torch.randn(5, 4), torch.randn(5, 3)
    both, y = model(x, goal)
    assert torch.equal(both, torch.cat([x, goal], 1)) and y.shape == (5, 2)


def test_the_order_of_results_is_part_of_what_a_graph_is():
    """Plans are remembered by what is asked for: the same graph with its results the other way round is another."""
    turned = {"y": "$y", "both": "$both"}, {"both": "$both", "y": "$y"}
    for outputs, shapes in zip(turned, ([(2,), (7,)], [(7,), (2,)]), strict=True):
        config = {**V1, "model": {"graph": {**V1["model"]["graph"], "outputs": outputs}}}
        component = {"type": "graph_model", "config": config, "in_keys": ["x", "goal"], "out_keys": ["one", "two"]}
        plan = build_model({"inputs": INPUTS, "components": {"net": component}}).plan
        assert [plan.edges[name].shape for name in ("one", "two")] == shapes


def test_it_dissolves_into_the_code_around_it_and_keeps_the_names_of_its_weights():
    model = outer(NATIVE)
    assert "linear(" in model.code and "graph_modules" not in model.code.split("v0")[1]
    assert list(model.state_dict()) == [f"graph_modules.net.graph_modules.out.{n}" for n in ("weight", "bias")]
    assert isinstance(model.graph_modules["net"], NestedGraph)


def test_a_weight_changed_inside_changes_what_the_code_gives():
    model, x, goal = outer(NATIVE), torch.randn(5, 4), torch.randn(5, 3)
    model(x, goal)
    with torch.no_grad():
        model.graph_modules["net"].graph_modules["out"].weight.zero_()
        model.graph_modules["net"].graph_modules["out"].bias.fill_(3.0)
    assert torch.equal(model(x, goal), torch.full((5, 2), 3.0))
    model.graph_modules["net"].graph_modules["out"] = nn.Linear(7, 2)
    assert torch.allclose(model(x, goal), model.slow(x, goal)) and not model(x, goal).eq(3.0).all()


def test_version_1_keeps_the_start_that_torch_draws_and_our_own_starts_by_role():
    """Orthogonal rows are what the role of a hidden layer draws, and torch never does."""

    def is_orthogonal(model, name):
        weight = model.graph_modules["net"].get_parameter(name)
        return torch.allclose(weight @ weight.T, 2 * torch.eye(2), atol=1e-5)

    version_1 = {**V1, "model": {"graph": {**V1["model"]["graph"], "outputs": ["$y"]}}}
    assert is_orthogonal(outer(NATIVE), "graph_modules.out.weight")
    assert not is_orthogonal(outer(version_1), "graph_modules.body.weight")
    stated = {"type": "graph_model", "config": version_1, "in_keys": ["x", "goal"], "init": "orthogonal"}
    model = build_model({"inputs": INPUTS, "components": {"net": stated}}, seed=0)
    assert is_orthogonal(model, "graph_modules.body.weight")


def test_copies_and_pickles_give_the_same():
    model, x, goal = outer(NATIVE), torch.randn(5, 4), torch.randn(5, 3)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x, goal), model(x, goal))


def test_auxiliary_losses_of_the_inside_reach_the_outside():
    moe = {"components": {"moe": {"type": "aux_probe", "in_keys": "x"}}}
    registry = default_registry.copy()

    class Probe(nn.Module):
        def forward(self, x, aux=None):
            if aux is not None:
                aux["probe_loss"] = x.mean()
            return x + 1

    registry.register("aux_probe")(Probe)
    config = {"inputs": {"x": [4]}, "components": {"net": {"type": "graph_model", "config": moe, "in_keys": "x"}}}
    model = build_model(config, registry, seed=0)
    assert model.plan.node("net").measure.aux == ("probe_loss",)
    sink: dict = {}
    x = torch.randn(5, 4)
    assert torch.equal(model.graph_modules["net"](x, aux=sink), x + 1) and torch.equal(sink["probe_loss"], x.mean())


def test_a_graph_knows_its_inputs_and_outputs_before_it_is_built():
    native, old = decode_graph(NATIVE, default_registry), decode_graph(V1, default_registry)
    assert (native.inputs, native.outputs, native.single) == (("a", "b"), ("out",), True)
    assert (old.inputs, old.outputs, old.single) == (("a", "b"), ("result", "joined"), False)
    assert decode_graph(native.encode(), default_registry) == native


@pytest.mark.parametrize(
    ("config", "keys", "words"),
    [
        (NATIVE, {"in_keys": ["x"]}, "1 inputs for the graph's 2: a, b"),
        (NATIVE, {"in_keys": {"a": "x", "c": "goal"}}, "the graph has no input 'c'; it has: a, b"),
        (NATIVE, {"in_keys": {"a": "x"}}, "its input 'b' is not in in_keys"),
        ({**NATIVE, "inputs": {"a": [9], "b": [3]}}, {}, r"input 'a' is stated as [9], but is given [4]"),
        ({"components": {"m": {"type": "nn.Linaer", "in_keys": "a"}}}, {}, "net.config.components.m.type: unknown"),
        ({"schema_version": 1, "model": {"sequential": {"layers": [{"_type_": "nn.Linaer"}]}}}, {}, "'nn.Linear'"),
        ({"components": {}}, {}, "at least one component"),
        ({"componets": {}}, {}, "unknown key (did you mean 'components'?)"),
        ("graph.yaml", {}, "the file 'graph.yaml' was not read"),
        ({"components": {"m": {"type": "gru", "in_keys": "a"}}}, {"in_keys": ["x"]}, "'m' keeps state between steps"),
        ({"components": {"m": {"type": "normalizer", "in_keys": "a"}}}, {"in_keys": ["x"]}, "'m' takes statistics"),
        ({"components": {"m": {"type": "nn.Conv2d", "in_keys": "a", "out_channels": 2, "kernel_size": 3}}},
         {"in_keys": ["x"]}, "components.m: "),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_its_place(config, keys, words):
    assert words in problems(config, **keys)
