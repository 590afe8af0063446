"""A container's run over a mapping: fast, and still as if each component had been called with it."""

import copy
import itertools

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from policysmith.compile.line import WARM
from policysmith.graph import Component, ComponentContainer, TensorComponent
from policysmith.modules import Conv2dModule, LinearModule, LSTMModule, MergeModule, ReLUModule

MAPPINGS = {"dict": dict, "TensorDict": lambda data: TensorDict(data, [3])}
every_mapping = pytest.mark.parametrize("to_mapping", MAPPINGS.values(), ids=MAPPINGS)


def adopted(*keys):
    """A row of adopted layers, which becomes code."""
    return ComponentContainer(
        {f"c{i}": TensorComponent(nn.Linear(4, 4), [a], [b]) for i, (a, b) in enumerate(itertools.pairwise(keys))}
    )


def slow(container, mapping):
    """The twin: each component is called with the mapping."""
    for name in container.execution_order():
        container[name](mapping)
    return mapping


def runs(container, to_mapping=dict, times=WARM + 3, **data):
    """The results of many runs, each from the inputs alone."""
    return [container.execute(to_mapping({k: v.clone() for k, v in data.items()})) for _ in range(times)]


class Doubles(Component):
    def compute(self, x):
        return 2 * x


CONTAINERS = {
    "adopted": lambda: adopted("x", "a", "b"),
    "in place": lambda: adopted("x", "x"),
    "several inputs": lambda: ComponentContainer(
        {"m": MergeModule(["x", "a"], "add"), "l": LinearModule(4, 4, in_keys=["x"], out_keys=["a"])}
    ),
    "computed": lambda: ComponentContainer({"a": Doubles(["x"], ["y"]), "b": ReLUModule(["y"], ["z"])}),
    "memory": lambda: ComponentContainer({"a": Doubles(["x"], ["y"]), "m": LSTMModule(4, 3, in_keys=["y"])}),
    "nested keys": lambda: adopted("x", "h.a", "h.b"),
}


@every_mapping
@pytest.mark.parametrize("name", CONTAINERS)
def test_every_run_equals_calling_each_component(name, to_mapping):
    container, x = CONTAINERS[name](), torch.randn(3, 4)
    expected = slow(container, to_mapping({"x": x.clone()}))
    for result in runs(container, to_mapping, x=x):
        assert list(result.keys()) == list(expected.keys())
        for key, value in expected.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(result[key], value)


def test_a_row_of_adopted_modules_becomes_code_and_gradients_flow():
    container, x = adopted("x", "a", "b", "c"), torch.randn(3, 4)
    runs(container, x=x)
    assert container._arrangement.line.runner.programs[True]
    found = []
    for run in (container.execute, lambda mapping: slow(container, mapping)):
        container.zero_grad()
        run({"x": x})["c"].square().sum().backward()
        found.append([p.grad.clone() for p in container.parameters()])
    torch.testing.assert_close(*found)


def test_another_batch_shape_runs_by_the_same_code():
    container = adopted("x", "a", "b")
    runs(container, x=torch.randn(3, 4))
    for shape in ((2, 5, 4), (4,), (0, 4)):
        x = torch.randn(shape)
        torch.testing.assert_close(container.execute({"x": x})["b"], slow(container, {"x": x})["b"])
    convolution = ComponentContainer({"c": Conv2dModule(3, 2, 3, in_keys=["x"])})
    assert runs(convolution, x=torch.randn(2, 2, 3, 6, 6))[-1]["output"].shape == (2, 2, 2, 4, 4)


@pytest.mark.parametrize("how", ["replace", "item", "attribute", "weights", "load", "hook", "inner hook", "mode"])
def test_the_code_stays_live(how):
    container, x = adopted("x", "a", "b"), torch.randn(3, 4)
    container["c1"] = TensorComponent(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), ["a"], ["b"])
    container.eval()
    before = runs(container, x=x)[-1]["b"]
    calls = []
    if how == "replace":
        container.replace_component("c0", TensorComponent(nn.Linear(4, 4), ["x"], ["a"]))
    elif how == "item":
        container["c0"] = TensorComponent(nn.Linear(4, 4), ["x"], ["a"])
    elif how == "attribute":
        setattr(container, "c0", TensorComponent(nn.Linear(4, 4), ["x"], ["a"]))  # noqa: B010 - as torch's tools do
    elif how == "weights":
        with torch.no_grad():
            container["c0"].module.weight.add_(1)
    elif how == "load":
        container.load_state_dict({k: v + 1 for k, v in container.state_dict().items()}, assign=True)
    elif how == "hook":
        container["c0"].register_forward_hook(lambda *_: calls.append(1))
    elif how == "inner hook":
        container["c1"].module[0].register_forward_hook(lambda *_: calls.append(1))
    else:
        container.train()
    torch.manual_seed(0)
    found = container.execute({"x": x})["b"]
    torch.manual_seed(0)
    torch.testing.assert_close(found, slow(container, {"x": x})["b"])
    assert torch.equal(found, before) == ("hook" in how)
    assert len(calls) == (2 if "hook" in how else 0)


def test_what_is_removed_does_not_run():
    container, x = adopted("x", "a", "b"), torch.randn(3, 4)
    runs(container, x=x)
    container.pop("c1")
    assert set(container.execute({"x": x})) == {"x", "a"}
    container.clear()
    assert set(container.execute({"x": x})) == {"x"}


@every_mapping
@pytest.mark.parametrize("warm", [0, WARM + 3])
def test_a_failure_names_the_component_and_what_was_wrong(warm, to_mapping):
    container = adopted("x", "a", "b")
    runs(container, x=torch.randn(3, 4), times=warm)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        container.execute(to_mapping({"x": torch.randn(3, 5)}))
    assert caught.value.__notes__ == ["in component 'c0'"]
    with pytest.raises(KeyError, match="missing input key 'x'") as caught:
        container.execute(to_mapping({"y": torch.randn(3, 5)}))
    assert caught.value.__notes__ == ["in component 'c0'"]


@pytest.mark.parametrize("warm", [0, WARM + 3])
def test_a_tensordict_moves_what_is_written_and_refuses_other_batches(warm):
    container = adopted("x", "a", "b")
    runs(container, lambda data: TensorDict(data, [3], device="cpu"), times=warm, x=torch.randn(3, 4))
    with pytest.raises(RuntimeError, match="batch"):
        ComponentContainer({"s": TensorComponent(nn.Flatten(0), ["x"], ["y"])}).execute(
            TensorDict({"x": torch.ones(3, 4)}, [3])
        )


def test_copies_do_not_run_the_originals_code():
    container, x = adopted("x", "a"), torch.randn(3, 4)
    runs(container, x=x)
    twin = copy.deepcopy(container)
    with torch.no_grad():
        twin["c0"].module.weight.zero_()
        twin["c0"].module.bias.zero_()
    assert not twin.execute({"x": x})["a"].any()
    assert container.execute({"x": x})["a"].any()
