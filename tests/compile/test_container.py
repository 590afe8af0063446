"""The container of live components: keys decide the order, nothing is cached between calls."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from policysmith.errors import WiringError
from policysmith.graph import Component, ComponentContainer, TensorComponent


class Times(Component):
    """Multiplies what it reads, all together, by a number."""

    def __init__(self, factor: float, in_keys, out_keys) -> None:
        super().__init__(in_keys, out_keys)
        self.factor = factor

    def compute(self, *tensors):
        return sum(tensors) * self.factor


def chain() -> dict[str, Times]:
    """x → a → b → d, with c from x into d."""
    return {
        "a": Times(2, ["x"], ["ya"]),
        "b": Times(3, ["ya"], ["yb"]),
        "c": Times(5, ["x"], ["yc"]),
        "d": Times(1, ["yb", "yc"], ["yd"]),
    }


@pytest.mark.parametrize("order", list(itertools.permutations("abcd")))
def test_the_result_is_that_of_the_wiring_whatever_the_order_of_registration(order):
    parts = chain()
    container = ComponentContainer({name: parts[name] for name in order})
    found = container.execution_order()
    assert found.index("a") < found.index("b") < found.index("d")
    assert found.index("c") < found.index("d")
    assert container.execute({"x": torch.tensor(1.0)})["yd"] == 11


def test_ties_go_in_the_order_of_registration():
    container = ComponentContainer({name: Times(1, ["x"], [f"y{name}"]) for name in "dbca"})
    assert container.execution_order() == list("dbca")


def test_forward_is_execute_and_takes_a_tensordict():
    container = ComponentContainer(chain())
    data = TensorDict({"x": torch.ones(3)}, [3])
    assert container(data) is data
    assert data["yd"].tolist() == [11, 11, 11]


def test_the_order_handed_out_is_a_copy():
    container = ComponentContainer(chain())
    container.execution_order().clear()
    assert len(container.execution_order()) == 4


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_name_can_be_taken_once():
    container = ComponentContainer(chain())
    before = container["a"]
    with pytest.raises(WiringError, match="'a' exists already; replace_component swaps it"):
        container.register_component("a", Times(1, ["x"], ["other"]))
    assert container["a"] is before
    assert container.execute({"x": torch.tensor(1.0)})["yd"] == 11


@pytest.mark.parametrize(
    "name", ["keys", "values", "items", "pop", "forward", "training", "a.b", "", "1a", "a b", "a-b", "action"]
)
def test_an_illegal_name_is_refused(name):
    container = ComponentContainer()
    with pytest.raises(WiringError, match=r"name|reserved"):
        container.register_component(name, Times(1, ["x"], ["y"]))
    assert len(container) == 0


@pytest.mark.parametrize("name", ["execute", "execution_order", "validate", "register_component", "replace_component"])
def test_the_containers_own_methods_are_no_names_either(name):
    with pytest.raises(WiringError, match="reserved"):
        ComponentContainer().register_component(name, Times(1, ["x"], ["y"]))


@pytest.mark.parametrize("name", ["_value_", "valueHead2", "component"])
def test_other_names_are_free(name):
    assert name in ComponentContainer({name: Times(1, ["x"], ["y"])})


def test_a_key_written_twice_is_refused_naming_both():
    container = ComponentContainer({"a": Times(1, ["x"], ["y"])})
    with pytest.raises(WiringError, match="'y' is written twice, by 'a' and by 'b'"):
        container.register_component("b", Times(1, ["x"], ["y"]))
        container.validate()


def test_a_cycle_is_refused_with_its_names():
    container = ComponentContainer({"a": Times(1, ["yb"], ["ya"]), "b": Times(1, ["ya"], ["yb"])})
    for act in (container.validate, container.execution_order, lambda: container.execute({"x": torch.ones(1)})):
        with pytest.raises(WiringError, match=r"cycle: (a → b → a|b → a → b)"):
            act()


@pytest.mark.parametrize("module", [nn.Linear(2, 2), "text", None, lambda x: x])
def test_what_is_no_component_is_refused_with_a_remedy(module):
    container = ComponentContainer()
    remedy = "use TensorComponent" if isinstance(module, nn.Module) else "must be a module"
    with pytest.raises(WiringError, match=remedy):
        container.register_component("a", module)
    assert len(container) == 0


def test_declared_dependencies_that_the_keys_bear_out_pass():
    parts = chain()
    container = ComponentContainer()
    container.register_component("b", parts["b"], dependencies=["a"])
    container.register_component("a", parts["a"], dependencies=[])
    container.validate()
    assert container.execution_order() == ["a", "b"]


@pytest.mark.parametrize(("dependency", "text"), [("c", "reads nothing that it writes"), ("nobody", "does not exist")])
def test_a_declared_dependency_that_is_none_is_refused(dependency, text):
    parts = chain()
    container = ComponentContainer({"a": parts["a"], "c": parts["c"]})
    container.register_component("b", parts["b"], dependencies=["a", dependency])
    with pytest.raises(WiringError, match=f"'b' declares a dependency on '{dependency}'.*{text}"):
        container.validate()


# --- replacing ---------------------------------------------------------------------------------------------------


def test_a_swap_takes_effect_at_once_and_returns_what_was_there():
    container = ComponentContainer(chain())
    before = container["b"]
    for factor in (7, 11):
        container.execute({"x": torch.tensor(1.0)})
        container.replace_component("b", Times(factor, ["ya"], ["yb"]))
        assert container.execute({"x": torch.tensor(1.0)})["yd"] == 2 * factor + 5
    assert container.replace_component("b", before).factor == 11


def test_a_swap_may_change_keys_and_so_the_order():
    container = ComponentContainer({"a": Times(2, ["x"], ["y"]), "b": Times(3, ["x"], ["z"])})
    assert container.execution_order() == ["a", "b"]
    container.replace_component("a", Times(2, ["z"], ["y"]))
    assert container.execution_order() == ["b", "a"]
    assert container.execute({"x": torch.tensor(1.0)})["y"] == 6


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (Times(1, ["yd"], ["yb"]), "cycle"),
        (Times(1, ["ya"], ["yc"]), "written twice"),
        (nn.Linear(1, 1), "TensorComponent"),
    ],
    ids=["cycle", "duplicate", "no component"],
)
def test_a_failed_swap_changes_nothing(module, text):
    container = ComponentContainer(chain())
    before, order, names = container["b"], container.execution_order(), list(container.state_dict())
    with pytest.raises(WiringError, match=text):
        container.replace_component("b", module)
    assert container["b"] is before
    assert container.execution_order() == order
    assert list(container.state_dict()) == names
    assert container.execute({"x": torch.tensor(1.0)})["yd"] == 11


def test_a_swap_that_breaks_a_declared_dependency_is_refused():
    container = ComponentContainer({"a": Times(2, ["x"], ["ya"])})
    container.register_component("b", Times(3, ["ya"], ["yb"]), dependencies=["a"])
    with pytest.raises(WiringError, match="declares a dependency"):
        container.replace_component("b", Times(3, ["x"], ["yb"]))
    assert container.execute({"x": torch.tensor(1.0)})["yb"] == 6


def test_replacing_what_is_not_there_names_what_is():
    with pytest.raises(WiringError, match=r"no component 'e' to replace; there are: a, b, c, d"):
        ComponentContainer(chain()).replace_component("e", Times(1, ["x"], ["y"]))


def test_a_swap_by_item_or_a_removal_is_never_answered_stale():
    container = ComponentContainer({"a": Times(2, ["x"], ["y"]), "b": Times(3, ["x"], ["z"])})
    container.execution_order()
    container["a"] = Times(2, ["z"], ["y"])
    assert container.execute({"x": torch.tensor(1.0)})["y"] == 6
    del container["b"]
    assert container.execution_order() == ["a"]
    assert container.execute({"z": torch.tensor(1.0)})["y"] == 2


def test_a_component_added_later_runs():
    container = ComponentContainer(chain())
    container.execution_order()
    container.register_component("e", Times(10, ["yd"], ["ye"]))
    assert container.execute({"x": torch.tensor(1.0)})["ye"] == 110


# --- execution ---------------------------------------------------------------------------------------------------


def test_nothing_is_kept_between_calls():
    container = ComponentContainer(chain())
    assert container.execute({"x": torch.tensor(1.0)})["yd"] == 11
    assert container.execute({"x": torch.tensor(2.0)})["yd"] == 22


def test_a_component_that_writes_what_it_reads_runs():
    container = ComponentContainer({"a": Times(3, ["x"], ["x"])})
    mapping = {"x": torch.tensor(1.0)}
    container.execute(mapping)
    assert mapping["x"] == 3
    container.execute(mapping)
    assert mapping["x"] == 9


def test_a_component_that_writes_what_it_reads_runs_before_those_that_read_it():
    container = ComponentContainer({"b": Times(10, ["x"], ["y"]), "a": Times(3, ["x"], ["x"])})
    assert container.execute({"x": torch.tensor(1.0)})["y"] == 30


def test_nested_keys_connect_components():
    container = ComponentContainer({"b": Times(3, [("h", "a")], ["y"]), "a": Times(2, ["x"], ["h.a"])})
    assert container.execution_order() == ["a", "b"]
    assert container.execute({"x": torch.tensor(1.0)})["y"] == 6


def test_parameters_are_named_by_component_and_copies_are_independent():
    container = ComponentContainer({"a": TensorComponent(nn.Linear(2, 3), ["x"], ["y"])})
    assert list(container.state_dict()) == ["a.weight", "a.bias"]
    for twin in (copy.deepcopy(container), pickle.loads(pickle.dumps(container))):
        x = torch.ones(1, 2)
        assert torch.equal(twin.execute({"x": x})["y"], container.execute({"x": x})["y"])
        twin.replace_component("a", TensorComponent(nn.Linear(2, 4), ["x"], ["y"]))
        assert container.execute({"x": x})["y"].shape == (1, 3)
