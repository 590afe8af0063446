"""A legacy agent moves layer by layer: whatever is converted already, it computes the same."""

import copy

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from policysmith.errors import WiringError
from policysmith.graph import ComponentContainer, LegacyComponent, TensorComponent
from tests.reference.legacy_agent import AddMergeLayer, Linear

SHAPES = {"x": [5]}
LAYERS = {
    "one": {"sources": [{"name": "x"}], "nn_params": {"out_features": 6}},
    "two": {"sources": ["one"], "nn_params": {"out_features": 6}, "nonlinearity": "nn.Tanh"},
    "out": {"sources": [{"name": "both"}], "nn_params": {"out_features": 2}, "nonlinearity": None},
}


def layers():
    """The parts of an agent: two layers, what merges them, and an output; its `x` is an input."""
    torch.manual_seed(3)
    both = AddMergeLayer(name="both", sources=[{"name": "one"}, {"name": "two"}])
    return {**{name: Linear(name=name, **options) for name, options in LAYERS.items()}, "both": both}


def legacy_container(parts):
    """Every layer unconverted, registered in an order that is not theirs."""
    given = dict(SHAPES)
    made = {}
    for name in ("one", "two", "both", "out"):
        made[name] = LegacyComponent(parts[name], given)
        given[name] = made[name]
    return ComponentContainer({name: made[name] for name in ("out", "both", "two", "one")})


def converted(parts):
    """The same as components of ours, with the layers' own weights."""

    class Sum(nn.Module):
        def forward(self, x, y):
            return x + y

    one, two, out = (parts[name]._net for name in ("one", "two", "out"))
    return {
        "one": TensorComponent(one, ["x"], ["one"]),
        "two": TensorComponent(two, ["one"], ["two"]),
        "both": TensorComponent(Sum(), ["one", "two"], ["both"]),
        "out": TensorComponent(out, ["both"], ["out"]),
    }


@pytest.mark.parametrize("moved", [(), ("one",), ("two", "out"), ("both",), ("one", "two", "both", "out")])
def test_half_converted_gives_what_all_legacy_and_all_converted_give(moved):
    parts = layers()
    container = legacy_container(parts)
    x = torch.randn(4, 5)
    before = container({"x": x})["out"]
    for name in moved:
        container.replace_component(name, converted(parts)[name])
    assert torch.equal(container({"x": x})["out"], before)
    assert torch.equal(ComponentContainer(converted(parts))({"x": x})["out"], before)
    assert before.std() > 0.1


def test_a_step_of_the_migration_is_rolled_back_with_what_it_replaced():
    parts = layers()
    container = legacy_container(parts)
    x = torch.randn(4, 5)
    expected = container({"x": x})["out"]
    kept = container.replace_component("two", TensorComponent(nn.Linear(6, 6), ["one"], ["two"]))
    assert not torch.equal(container({"x": x})["out"], expected)
    container.replace_component("two", kept)
    assert torch.equal(container({"x": x})["out"], expected)


def test_state_dict_has_the_names_that_it_had():
    parts = layers()
    names = set(legacy_container(parts).state_dict())
    assert names == {
        "one._net.0.weight", "one._net.0.bias", "two._net.0.weight", "two._net.0.bias", "out._net.weight",
        "out._net.bias",
    }  # fmt: skip
    other = legacy_container({name: copy.deepcopy(part) for name, part in parts.items()})
    with torch.no_grad():
        parts["one"]._net[0].weight.zero_()
    other.load_state_dict(legacy_container(parts).state_dict())
    assert not other["one"].module._net[0].weight.any()


def test_a_layer_runs_again_on_a_mapping_that_holds_what_it_gave():
    container = legacy_container(layers())
    mapping = container({"x": torch.randn(4, 5)})
    stale = mapping["out"]
    mapping["x"] = torch.randn(4, 5)
    fresh = container({"x": mapping["x"]})["out"]
    assert torch.equal(container(mapping)["out"], fresh) and not torch.equal(fresh, stale)


def test_gradients_reach_the_weights_of_the_layer():
    parts = layers()
    legacy_container(parts)({"x": torch.randn(4, 5)})["out"].sum().backward()
    assert all(p.grad is not None and p.grad.any() for name in LAYERS for p in parts[name]._net.parameters())


def test_a_tensordict_is_written_like_a_mapping():
    container = legacy_container(layers())
    x = torch.randn(4, 5)
    written = container(TensorDict({"x": x}, [4]))
    assert torch.equal(written["out"], container({"x": x})["out"])


def test_a_copy_has_weights_of_its_own():
    container = legacy_container(layers())
    other = copy.deepcopy(container)
    x = torch.randn(4, 5)
    expected = container({"x": x})["out"]
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(container({"x": x})["out"], expected) and not other({"x": x})["out"].any()


class Counter(nn.Module):
    """A layer with a state that it reads and writes, and a number for others."""

    def __init__(self):
        super().__init__()
        self._name, self._sources, self._out_tensor_shape = "count", None, [1]

    def _forward(self, td):
        before = td.get("state")
        td["state"] = td["x"][:, :1] + (0 if before is None else before)
        td["count"], td["_rows_"] = td["state"].clone(), len(td["x"])
        return td


@pytest.mark.parametrize("make", [dict, lambda data: TensorDict(data, [2])])
def test_keys_beside_sources_are_read_and_written_and_may_be_absent(make):
    container = ComponentContainer(
        {"count": LegacyComponent(Counter(), reads=("x", "state"), writes=("state", "_rows_"))}
    )
    x = torch.tensor([[1.0], [2.0]])
    mapping = container(make({"x": x}))
    assert container(mapping)["count"].tolist() == [[2.0], [4.0]]
    assert mapping["_rows_"] == 2


def test_a_key_that_was_not_named_is_asked_for_by_name():
    with pytest.raises(
        KeyError, match="'count' reads 'x', which is none of its sources or not there: name it in reads="
    ):
        LegacyComponent(Counter())({"x": torch.zeros(1, 1)})


def test_a_layer_that_is_not_set_up_needs_to_know_its_sources():
    with pytest.raises(WiringError, match="'one' is not set up: tell in sources= what it reads as 'x'"):
        LegacyComponent(layers()["one"])


def test_what_is_no_legacy_layer_is_refused():
    with pytest.raises(WiringError, match="Linear lacks _name and _sources"):
        LegacyComponent(nn.Linear(2, 2))

    class Silent(Counter):
        def _forward(self, td):
            return td

    with pytest.raises(WiringError, match="'count' did not write 'count'"):
        LegacyComponent(Silent())({})
