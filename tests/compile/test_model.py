"""GraphModel and build_model: forms of inputs and outputs, seeds, and every problem at once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from policysmith.errors import ConfigError, ShapeError
from policysmith.graph import TensorSpec, build_model
from policysmith.registry import Registry, default_registry

X, Y = torch.linspace(-1, 1, 12).view(3, 4), torch.linspace(0, 1, 6).view(3, 2)
CONFIG: dict[str, Any] = {
    "inputs": {"x": [4], "y": [2]},
    "components": {
        "left": {"type": "nn.Linear", "in_keys": "x", "out_features": 3},
        "right": {"type": "nn.Linear", "in_keys": "y", "out_features": 3},
        "both": {"type": "sum", "in_keys": ["left", "right"]},
    },
}


def config(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(CONFIG), **changes}


def component(**changes: Any) -> dict[str, Any]:
    """The configuration with changes to the component `left`."""
    changed = config()
    changed["components"]["left"].update(changes)
    return changed


def problems(source: Any, **options: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        build_model(source, **options)
    return {problem.path: problem.message for problem in caught.value.problems}


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


# --- calls -------------------------------------------------------------------------------------------------------


def test_inputs_are_taken_by_place_and_by_name():
    model = build_model(config())
    expected = model.graph_modules["left"](X) + model.graph_modules["right"](Y)
    for found in (model(X, Y), model(X, y=Y), model(x=X, y=Y), model(y=Y, x=X)):
        assert torch.equal(found, expected)
    assert model.inputs == ("x", "y")


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((X, Y, Y), {}, "3 positional inputs for 2: x, y"),
        ((X,), {}, "missing input 'y'"),
        ((), {}, "missing input 'x', 'y'"),
        ((X,), {"x": X}, "input 'x' is given twice"),
        ((X, Y), {"y": Y}, "input 'y' is given twice"),
        ((), {"x": X, "yy": Y}, r"unexpected input 'yy' \(did you mean 'y'\?\)"),
        ((X, Y), {"z": Y}, "unexpected input 'z'"),
    ],
)
def test_wrong_inputs_are_refused_by_name(args, kwargs, text):
    with pytest.raises(ShapeError, match=text):
        build_model(config())(*args, **kwargs)


def test_outputs_are_one_several_or_named():
    single = build_model(config(outputs="left"), seed=0)(X, Y)
    several = build_model(config(outputs=["left", "both"]), seed=0)(X, Y)
    named = build_model(config(outputs={"sum": "both", "first": "left"}), seed=0)(X, Y)
    assert isinstance(single, Tensor)
    assert isinstance(several, tuple) and len(several) == 2
    assert list(named) == ["sum", "first"]
    assert torch.equal(several[0], single)
    assert torch.equal(named["sum"], several[1])
    assert torch.equal(named["first"], single)


def test_a_list_of_one_output_gives_a_tuple_of_one():
    found = build_model(config(outputs=["left"]), seed=0)(X, Y)
    assert type(found) is tuple and len(found) == 1
    assert torch.equal(found[0], build_model(config(outputs="left"), seed=0)(X, Y))


def test_by_default_the_last_component_is_the_output():
    assert torch.equal(build_model(config(), seed=0)(X, Y), build_model(config(outputs="both"), seed=0)(X, Y))


def test_an_input_may_be_an_output():
    assert torch.equal(build_model(config(outputs=["x", "both"]))(X, Y)[0], X)


def test_what_no_output_needs_is_not_run():
    model = build_model(config(outputs="left"))
    calls: list[str] = []
    for name, part in model.graph_modules.items():
        part.register_forward_hook(lambda *_, name=name: calls.append(name))
    model(X, Y)
    assert calls == ["left"]


def test_any_leading_batch_dimensions_pass():
    model = build_model(config())
    assert model(torch.zeros(5, 6, 4), torch.zeros(5, 6, 2)).shape == (5, 6, 3)


def test_gradients_reach_inputs_and_parameters():
    model = build_model(config())
    x = X.clone().requires_grad_()
    model(x, Y).sum().backward()
    assert torch.allclose(x.grad, model.graph_modules["left"].weight.sum(0).expand(3, 4))
    for name, given in (("left", X), ("right", Y)):
        layer = model.graph_modules[name]
        assert torch.allclose(layer.weight.grad, given.sum(0).expand_as(layer.weight))
        assert torch.equal(layer.bias.grad, torch.full((3,), 3.0))  # the rows


def test_parameters_are_named_by_component():
    assert [n for n, _ in build_model(config()).named_parameters()] == [
        "graph_modules.left.weight",
        "graph_modules.left.bias",
        "graph_modules.right.weight",
        "graph_modules.right.bias",
    ]


def test_a_shared_part_is_one_module_under_two_names():
    shared = component()
    shared["components"]["twin"] = {"use": "left", "in_keys": "x"}
    model = build_model({**shared, "outputs": ["left", "twin"]})
    assert model.graph_modules["twin"] is model.graph_modules["left"]
    assert sum(p.numel() for p in model.parameters()) == model.plan.parameter_count
    for m in (model, copy.deepcopy(model)):
        first, second = m(X, Y)
        assert torch.equal(first, second)
        with torch.no_grad():
            m.graph_modules["twin"].weight.add_(1)
        assert not torch.equal(m(X, Y)[0], first)
        assert torch.equal(*m(X, Y))


def test_a_frozen_component_does_not_learn():
    model = build_model(component(freeze=True))
    assert not any(p.requires_grad for p in model.graph_modules["left"].parameters())
    model(X, Y).sum().backward()
    assert all(p.grad is None for p in model.graph_modules["left"].parameters())
    assert all(p.grad is not None for p in model.graph_modules["right"].parameters())


def test_an_initializer_is_used():
    model = build_model(component(init={"type": "constant", "value": 0.5}))
    assert (model.graph_modules["left"].weight == 0.5).all()
    assert not model.graph_modules["left"].bias.any()


def test_the_torch_initializer_leaves_what_torch_drew():
    model = build_model(component(init="torch"))
    assert model.graph_modules["left"].bias.any()


# --- seeds -------------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_weights_wherever_it_is_stated():
    assert same_weights(build_model(config(seed=3)), build_model(config(), seed=3))
    assert same_weights(build_model(config(seed=9), seed=3), build_model(config(seed=3)))
    assert not same_weights(build_model(config(seed=3)), build_model(config(seed=4)))


def test_seed_zero_is_a_seed():
    assert same_weights(build_model(config(seed=9), seed=0), build_model(config(seed=0)))
    assert same_weights(build_model(config(seed=0)), build_model(config(seed=0)))


def test_without_a_seed_torchs_own_decides():
    torch.manual_seed(1)
    first, second = build_model(config()), build_model(config())
    torch.manual_seed(1)
    assert same_weights(build_model(config()), first)
    assert not same_weights(first, second)


@pytest.mark.parametrize("seed", ["three", 1.5, True, -1, [1]])
def test_a_seed_is_a_whole_number(seed):
    assert set(problems(config(seed=seed))) == {"seed"}


def test_two_builds_share_nothing():
    first, second = build_model(config(), seed=0), build_model(config(), seed=0)
    assert not {id(m) for m in first.modules()} & {id(m) for m in second.modules()}
    assert not {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}


# --- sources -----------------------------------------------------------------------------------------------------

TEXT = """\
inputs: {x: [4]}
components:
  trunk: {type: mlp, in_keys: x, hidden: [5]}
"""


def test_a_file_a_mapping_and_a_dictconfig_are_alike(tmp_path):
    file = tmp_path / "graph.yaml"
    file.write_text(TEXT, encoding="utf-8")
    mapping = {"inputs": {"x": [4]}, "components": {"trunk": {"type": "mlp", "in_keys": "x", "hidden": [5]}}}
    models = [build_model(source, seed=0) for source in (file, str(file), mapping, OmegaConf.create(mapping))]
    assert all(same_weights(m, models[0]) for m in models)
    assert all(torch.equal(m(X), models[0](X)) for m in models)


def test_a_relative_file_is_found_in_base_dir(tmp_path):
    (tmp_path / "graph.yaml").write_text(TEXT, encoding="utf-8")
    expected = build_model(tmp_path / "graph.yaml", seed=0)
    for source, base in (("graph.yaml", tmp_path), (Path("graph.yaml"), str(tmp_path))):
        assert torch.equal(build_model(source, base_dir=base, seed=0)(X), expected(X))
    with pytest.raises(ConfigError, match=r"graph\.yaml"):
        build_model("graph.yaml", base_dir=tmp_path / "elsewhere")


def test_a_mapping_is_left_as_it_was():
    given = config(seed=1)
    before = copy.deepcopy(given)
    build_model(given)
    assert given == before


def test_inputs_in_code_add_to_those_in_the_configuration():
    without = {"components": CONFIG["components"]}
    model = build_model(without, inputs={"x": [4], "y": TensorSpec((2,))})
    assert model(X, Y).shape == (3, 3)
    assert build_model({**without, "inputs": {"x": [4]}}, inputs={"y": (2,)})(X, Y).shape == (3, 3)
    wider = build_model(config(), inputs={"x": [7]})
    assert wider(torch.zeros(3, 7), Y).shape == (3, 3)


def test_category_inputs_can_be_given_in_code():
    table = {"components": {"table": {"type": "embedding", "in_keys": "c", "dim": 3}}}
    model = build_model(table, inputs={"c": TensorSpec((), torch.int64, (5,))})
    assert model(torch.tensor([0, 4])).shape == (2, 3)


def test_an_isolated_registry_knows_only_its_own():
    registry = Registry()
    assert (
        "unknown component 'mlp'"
        in problems({"inputs": {"x": [4]}, "components": {"a": {"type": "mlp", "in_keys": "x"}}}, registry=registry)[
            "components.a.type"
        ]
    )
    registry.register("mine")(nn.Identity)
    model = build_model({"inputs": {"x": [4]}, "components": {"a": {"type": "mine", "in_keys": "x"}}}, registry)
    assert torch.equal(model(X), X)
    assert "mine" not in default_registry.names("component")


# --- problems ----------------------------------------------------------------------------------------------------


def test_all_problems_come_at_once_with_their_paths():
    found = problems(
        {
            "inputs": {"x": [4], "bad": "shape"},
            "ouputs": "both",
            "components": {
                "a": {"type": "mpl", "in_keys": "x"},
                "b": {"type": "mlp", "in_keys": "x", "hiden": [3]},
                "c": {"type": "mlp", "hidden": [True]},
            },
        }
    )
    assert set(found) == {
        "ouputs",
        "inputs.bad",
        "components.a.type",
        "components.b.hiden",
        "components.c.in_keys",
        "components.c.hidden.0",
    }
    assert "did you mean 'outputs'?" in found["ouputs"]
    assert "did you mean 'mlp'?" in found["components.a.type"]
    assert "did you mean 'hidden'?" in found["components.b.hiden"]


def test_problems_have_places(tmp_path):
    file = tmp_path / "graph.yaml"
    file.write_text(TEXT.replace("hidden: [5]", "hidden: [0]"), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        build_model(file)
    assert str(caught.value).startswith(f"{file}:3:")
    assert "components.trunk.hidden.0: must be > 0, found 0" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "path", "text"),
    [
        ({"type": "nn.Linaer"}, "components.left.type", "did you mean 'nn.Linear'?"),
        ({"type": 3}, "components.left.type", "unknown component 3"),
        ({"in_keys": "z"}, "components.left.in_keys", "nothing produces 'z'"),
        ({"in_keys": None}, "components.left.in_keys", "required"),
        ({"in_keys": []}, "components.left.in_keys", "expected a name or a list of names"),
        ({"in_keys": [1]}, "components.left.in_keys", "expected a name or a list of names"),
        ({"in_keys": {"input": 1}}, "components.left.in_keys", "from argument names to keys"),
        ({"out_keys": []}, "components.left.out_keys", "expected a name or a list of names"),
        ({"out_keys": ["a", "a"]}, "components.left.out_keys", "the same name twice"),
        ({"out_keys": "x"}, "components.left.out_keys", "'x' is the name of an input"),
        ({"out_keys": "both"}, "components.both.out_keys", "produced twice, by 'left' and by 'both'"),
        ({"out_keys": "a b"}, "components.left.out_keys", "illegal component name 'a b'"),
        ({"freeze": "yes"}, "components.left.freeze", "expected true or false, found 'yes'"),
        ({"init": "orthogonl"}, "components.left.init", "did you mean 'orthogonal'?"),
        ({"init": {"type": "normal", "std": -1}}, "components.left.init.std", "must be ≥ 0, found -1"),
        ({"wrappers": "safe"}, "components.left.wrappers", "expected a list"),
        ({"wrappers": [{"type": "nothing"}]}, "components.left.wrappers.0.type", "unknown wrapper 'nothing'"),
        ({"out_features": 2.5}, "components.left.out_features", "expected an integer, found 2.5"),
        ({"out_features": True}, "components.left.out_features", "expected an integer, found true"),
        ({"out_features": "3"}, "components.left.out_features", "expected an integer, found '3'"),
        ({"freez": True}, "components.left.freez", "did you mean 'freeze'?"),
        ({"in_features": 9}, "components.left.in_features", "stated as 9, but the inputs give 4"),
    ],
)
def test_a_wrong_component_is_a_problem_at_its_place(changes, path, text):
    found = problems(component(**changes))
    assert path in found
    assert text in found[path]
    assert set(found) <= {path, "components.both.in_keys"}  # without `left`, `both` lacks an input


@pytest.mark.parametrize(
    "extra",
    [{"type": "mlp"}, {"hidden": [3]}, {"init": "normal"}, {"freeze": True}],
    ids=["type", "option", "init", "freeze"],
)
def test_a_share_takes_nothing_of_its_own(extra):
    shared = config()
    shared["components"]["twin"] = {"use": "left", "in_keys": "x", **extra}
    shared["components"]["both"]["in_keys"].append("twin")
    (path,) = problems(shared)
    assert path in ("components.twin.use", *(f"components.twin.{key}" for key in extra))


@pytest.mark.parametrize("use", [1, None, ["left"]])
def test_a_share_names_a_component(use):
    shared = config()
    shared["components"]["twin"] = {"use": use, "in_keys": "x"}
    assert list(problems(shared)) == ["components.twin.use"]


@pytest.mark.parametrize("name", ["keys", "a.b", "1st", "a b", "training", "action", "forward"])
def test_an_illegal_name_is_a_problem_at_its_place(name):
    wrong = config()
    wrong["components"][name] = {"type": "mlp", "in_keys": "x"}
    (path,) = problems(wrong)
    assert path.startswith("components.")


@pytest.mark.parametrize(
    ("changes", "path", "text"),
    [
        ({"inputs": {}}, "inputs", "required"),
        ({"inputs": None}, "inputs", "expected a mapping"),
        ({"inputs": [4]}, "inputs", "expected a mapping"),
        ({"inputs": {"x": 4, "y": [2]}}, "inputs.x", "expected an event shape such as [4], found 4"),
        ({"inputs": {"x": [0], "y": [2]}}, "inputs.x", "expected an event shape"),
        ({"inputs": {"x": [True], "y": [2]}}, "inputs.x", "expected an event shape"),
        ({"inputs": {"x": [4.0], "y": [2]}}, "inputs.x", "expected an event shape"),
        ({"outputs": "bth"}, "outputs", "nothing produces 'bth' (did you mean 'both'?)"),
        ({"outputs": ["both", "z"]}, "outputs", "nothing produces 'z'"),
        ({"outputs": {"result": "z"}}, "outputs", "nothing produces 'z'"),
        ({"outputs": 3}, "outputs", "expected a name, a list of names, or a mapping"),
        ({"outputs": []}, "outputs", "expected a name, a list of names, or a mapping"),
        ({"outputs": [3]}, "outputs", "3"),
        ({"outputs": {"result": ["both"]}}, "outputs", "['both']"),
        ({"components": {}}, "components", "at least one component"),
        ({"components": []}, "components", "expected a mapping"),
        ({"components": {"left": 3}}, "components.left", "expected a mapping with 'type' and 'in_keys'"),
        ({"model": {}}, "model", "unknown key"),
    ],
)
def test_a_wrong_section_is_a_problem_at_its_place(changes, path, text):
    found = problems(config(**changes))
    assert path in found
    assert text in found[path]


def test_missing_components_are_said():
    assert "'components' is missing" in problems({"inputs": {"x": [4]}})[""]


@pytest.mark.parametrize("name", ["a b", "", "x-y", "1", "keys"])
def test_any_text_may_name_an_input_or_it_is_refused_at_its_place(name):
    source = {"inputs": {name: [4]}, "components": {"a": {"type": "mlp", "in_keys": name}}}
    try:
        model = build_model(source)
    except ConfigError as error:
        assert all(problem.path.startswith(("inputs", "components.a.in_keys")) for problem in error.problems)
    else:
        assert model(X).shape == (3, 64)


def test_a_value_that_cannot_be_a_config_is_refused():
    for source in (None, 3, [CONFIG]):
        with pytest.raises(ConfigError):
            build_model(source)
