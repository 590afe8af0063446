"""Components: pure computation with named inputs and outputs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
from torch import nn

from policysmith.errors import WiringError
from policysmith.graph import Component, TensorComponent


class Halves(Component):
    """Splits a vector in two."""

    def compute(self, x):
        return x.chunk(2, -1)


class Doubled(Component):
    in_keys = ["x"]  # noqa: RUF012
    out_keys = ["y"]  # noqa: RUF012

    def compute(self, x):
        return x * 2


def test_it_reads_and_writes_a_plain_mapping():
    mapping = {"x": torch.arange(4.0)}
    result = Halves(["x"], ["a", "b"])(mapping)
    assert result is mapping
    assert mapping["a"].tolist() == [0, 1]
    assert mapping["b"].tolist() == [2, 3]


def test_it_reads_and_writes_a_tensordict():
    data = TensorDict({"x": torch.zeros(3, 4)}, [3])
    result = Halves(["x"], ["a", "b"])(data)
    assert result is data
    assert data["a"].shape == (3, 2)


def test_keys_may_be_class_attributes():
    assert Doubled()({"x": torch.ones(1)})["y"] == 2
    assert list(Doubled().in_keys) == ["x"]


def test_keys_of_one_instance_are_not_those_of_another():
    first, second = Doubled(["a"], ["b"]), Doubled(["c"], ["d"])
    assert (list(first.in_keys), list(second.in_keys)) == (["a"], ["c"])
    assert list(Doubled().in_keys) == ["x"]


@pytest.mark.parametrize("mapping", [{"obs": {"x": torch.ones(2)}}, TensorDict({"obs": {"x": torch.ones(2)}}, [2])])
@pytest.mark.parametrize("key", ["obs.x", ("obs", "x")])
def test_nested_keys_are_dotted_names_or_tuples(mapping, key):
    result = Doubled([key], [("out", "y")])(mapping)
    assert result["out"]["y"].tolist() == [2, 2]


def test_a_missing_key_names_what_is_there():
    with pytest.raises(KeyError, match="missing input key 'x'; there are: y, z"):
        Doubled()({"y": torch.ones(1), "z": torch.ones(1)})
    with pytest.raises(KeyError, match=r"\('obs', 'x'\)"):
        Doubled([("obs", "x")], ["y"])({"obs": {"y": torch.ones(1)}})


def test_a_key_below_a_tensor_is_missing_too():
    with pytest.raises(KeyError, match="missing input key"):
        Doubled([("obs", "x")], ["y"])({"obs": torch.ones(1)})


def test_a_tensor_is_no_mapping():
    with pytest.raises(TypeError, match="takes a mapping or a TensorDict, found Tensor"):
        Doubled()(torch.ones(1))


def test_a_wrong_number_of_outputs_is_refused():
    with pytest.raises(WiringError, match="gave 2 outputs for out_keys"):
        Halves(["x"], ["a"])({"x": torch.ones(4)})
    with pytest.raises(WiringError, match="gave 1 outputs for out_keys"):
        Doubled(["x"], ["a", "b"])({"x": torch.ones(4)})


def test_an_unwritten_compute_says_so():
    with pytest.raises(NotImplementedError, match="Component defines neither compute nor forward"):
        Component(["x"], ["y"])({"x": torch.ones(1)})


def test_any_batch_dimensions_pass():
    for shape in ((), (3,), (2, 3)):
        data = TensorDict({"x": torch.zeros(*shape, 4)}, shape)
        assert TensorComponent(nn.Linear(4, 5), ["x"], ["y"])(data)["y"].shape == (*shape, 5)


def test_it_is_a_tensordict_module_that_torchrl_takes():
    chain = TensorDictSequential(
        TensorComponent(nn.Linear(4, 5), ["x"], ["h"]), TensorComponent(nn.Linear(5, 2), ["h"], ["y"])
    )
    assert isinstance(chain[0], TensorDictModuleBase)
    assert chain.in_keys == ["x"]
    assert chain(TensorDict({"x": torch.zeros(3, 4)}, [3]))["y"].shape == (3, 2)


# --- adopted modules ---------------------------------------------------------------------------------------------


def test_an_adopted_module_keeps_its_parameter_names():
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    view = TensorComponent(module, ["x"], ["y"])
    assert list(view.state_dict()) == list(module.state_dict())
    assert [n for n, _ in view.named_parameters()] == [n for n, _ in module.named_parameters()]
    assert all(a is b for a, b in zip(view.parameters(), module.parameters(), strict=True))
    assert [n for n, _ in view.named_buffers()] == [n for n, _ in module.named_buffers()]


def test_state_moves_freely_between_a_module_and_its_view():
    module, other = nn.Linear(4, 5), nn.Linear(4, 5)
    view = TensorComponent(module, ["x"], ["y"])
    view.load_state_dict(other.state_dict())
    assert torch.equal(module.weight, other.weight)
    view.load_state_dict({n: t + 1 for n, t in other.state_dict().items()}, assign=True)
    assert torch.equal(module.weight, other.weight + 1)
    view.double()
    assert module.weight.dtype == torch.float64
    module.weight = nn.Parameter(torch.zeros(5, 4))
    assert view.state_dict()["weight"].sum() == 0


def test_mode_and_gradients_are_those_of_the_module_behind():
    module = nn.Sequential(nn.Linear(4, 5), nn.Dropout())
    view = TensorComponent(module, ["x"], ["y"])
    view.eval()
    assert not module.training
    assert not module[1].training
    view.train()
    assert module[1].training
    view.requires_grad_(False)
    assert not any(p.requires_grad for p in module.parameters())
    view.requires_grad_(True)
    view({"x": torch.ones(2, 4)})["y"].sum().backward()
    assert module[0].weight.grad is not None
    view.zero_grad()
    assert module[0].weight.grad is None


def test_arguments_are_passed_by_name():
    view = TensorComponent(nn.Bilinear(2, 3, 4), ["b", "a"], ["y"], arguments=["input2", "input1"])
    assert view({"a": torch.ones(1, 2), "b": torch.ones(1, 3)})["y"].shape == (1, 4)


def test_inputs_are_joined_where_asked():
    view = TensorComponent(nn.Identity(), ["a", "b", "c"], ["y"], event_ndims=[1, 0, 2])
    result = view({"a": torch.zeros(5, 3), "b": torch.ones(5), "c": torch.full((5, 2, 2), 2.0)})["y"]
    assert result.tolist() == [[0, 0, 0, 1, 2, 2, 2, 2]] * 5


def test_hooks_on_the_adopted_module_and_on_the_view_run():
    calls = []
    module = nn.Linear(4, 5)
    view = TensorComponent(module, ["x"], ["y"])
    module.register_forward_hook(lambda *_: calls.append("module"))
    view.register_forward_hook(lambda *_: calls.append("view"))
    view({"x": torch.ones(2, 4)})
    assert calls == ["module", "view"]


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_copy_is_a_view_of_a_copy(copier):
    view = TensorComponent(nn.Linear(4, 5), ["x"], ["y"])
    twin = copier(view)
    assert twin.module is not view.module
    assert twin.module.weight is next(iter(twin.parameters()))
    x = torch.ones(2, 4)
    assert torch.equal(twin({"x": x})["y"], view({"x": x})["y"])
    with torch.no_grad():
        twin.module.weight.zero_()
    assert not twin.state_dict()["weight"].any()
    assert view.module.weight.any()
