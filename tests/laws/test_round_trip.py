"""Law 2: decode(encode(x)) == x for every type of every slot, and every wrong option is a problem with a path."""

from __future__ import annotations

import inspect
import json
import types
import typing
from typing import Any

import pytest
from pydantic import ValidationError

from policysmith.config.json_schema import type_options
from policysmith.config.load import load
from policysmith.config.options import failures
from policysmith.errors import ConfigError
from policysmith.graph import GraphSpec, build_model
from policysmith.graph.spec import COMPONENT_KEYS, decode_components
from policysmith.registry import SLOTS, PartSpec, default_registry

from .cases import CASES, case_of, entries, input_names, one
from .policies import MODELS

# Options that a type of another slot than `component` and `model` needs to be decoded at all.
REQUIRED: dict[tuple[str, str], dict[str, Any]] = {
    **{("dataset", name): {"path": "data"} for name in ("arrays", "memmap", "parquet")},
    ("dataset", "minari"): {"id": "a/b-v0"},
    ("section", "environment"): {"id": "CartPole-v1"},
    ("section", "spaces"): {"observation": {"type": "box", "shape": [2]}, "action": {"type": "discrete", "n": 2}},
    ("skill_environment", "minigrid"): {"id": "MiniGrid-Empty-5x5-v0"},
    ("schedule", "constant"): {"value": 0.1},
    ("schedule", "linear"): {"start": 0.1},
    ("space", "box"): {"shape": [3]},
    ("space", "dict"): {"spaces": {"x": {"type": "discrete", "n": 2}}},
    ("space", "discrete"): {"n": 3},
    ("space", "multi_binary"): {"n": 3},
    ("space", "multi_discrete"): {"nvec": [3, 2]},
    ("space", "tuple"): {"spaces": [{"type": "discrete", "n": 2}]},
}

every_entry = pytest.mark.parametrize(("slot", "name"), list(entries(*SLOTS)))
every_component = pytest.mark.parametrize(("slot", "name"), list(entries("component")))


def options_of(slot: str, name: str) -> dict[str, Any]:
    """Options with which a type can be decoded; fails with what to add where some are missing."""
    if slot == "component":
        return dict(case_of(name)[1].options)
    if slot == "model":
        return dict(MODELS[name])
    given = REQUIRED.get((slot, name), {})
    missing = [n for n in required(slot, name) if n not in given]
    if missing:
        pytest.fail(f"{slot} {name!r} requires {missing}: add REQUIRED[{(slot, name)!r}] in {__file__}")
    return given


def required(slot: str, name: str) -> list[str]:
    schema = default_registry.entry(slot, name).schema
    return [
        n
        for n, (_, default) in schema.parameters.items()
        if default is inspect.Parameter.empty and n not in schema.inferred
    ]


def atoms(annotation: Any) -> set[Any]:
    """The plain types that an annotation allows at its top level."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return atoms(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return set().union(*map(atoms, typing.get_args(annotation)))
    return {annotation}


def problems(slot: str, value: Any) -> dict[tuple[str | int, ...], str]:
    with pytest.raises(ValidationError) as caught:
        default_registry.decode(slot, value)
    return dict(failures(caught.value))


@every_entry
def test_a_spec_encodes_to_plain_data_that_decodes_to_it(slot, name):
    spec = default_registry.decode(slot, {"type": name, **options_of(slot, name)})
    data = spec.encode()
    again = default_registry.decode(slot, data)
    assert json.loads(json.dumps(data)) == data
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.encode() == data
    assert dict(again.options) == dict(spec.options)


@every_entry
def test_an_unknown_option_is_a_problem_at_its_place(slot, name):
    found = problems(slot, {"type": name, **options_of(slot, name), "no_such_option": 1})
    assert list(found) == [("no_such_option",)]
    assert repr(name) in found["no_such_option",]


@every_entry
def test_a_value_of_the_wrong_type_is_a_problem_at_its_place(slot, name):
    schema = default_registry.entry(slot, name).schema
    for option, (annotation, _) in schema.parameters.items():
        assert annotation is not Any, f"{slot} {name!r}: option {option!r} has no type, so nothing checks it"
        wrong: Any = 1.5 if "dict" in str(annotation) else {"wrong": 1}
        found = problems(slot, {"type": name, **options_of(slot, name), option: wrong})
        assert {path[0] for path in found} == {option}, f"{option}={wrong!r}"
        assert all(found.values())


@every_entry
def test_a_missing_option_is_a_problem_at_its_place(slot, name):
    for option in required(slot, name):
        options = {n: v for n, v in options_of(slot, name).items() if n != option}
        assert (option,) in problems(slot, {"type": name, **options})


@every_entry
def test_bool_is_never_a_number(slot, name):
    for option, (annotation, _) in default_registry.entry(slot, name).schema.parameters.items():
        kinds = atoms(annotation)
        if kinds & {int, float} and bool not in kinds:
            assert (option,) in problems(slot, {"type": name, **options_of(slot, name), option: True})


@every_entry
def test_every_default_is_legal(slot, name):
    spec = default_registry.decode(slot, {"type": name, **options_of(slot, name)})
    schema = default_registry.entry(slot, name).schema
    stated = {n: v for n, v in spec.encode().items() if n in schema.parameters and v is not None}
    for option, value in stated.items():
        default_registry.decode(slot, {"type": name, **options_of(slot, name), option: value})


@every_entry
def test_every_type_says_what_it_is(slot, name):
    assert len(default_registry.entry(slot, name).summary) > 10


@every_entry
def test_every_option_says_what_it_is(slot, name):
    """In a line under `Args:` of its type, or of what its options are taken from."""
    options = type_options(default_registry.entry(slot, name))
    assert [option for option, schema in options.items() if not schema.get("description")] == []


@every_component
def test_no_option_is_hidden_behind_a_key_of_every_component(slot, name):
    assert not set(default_registry.entry(slot, name).schema.parameters) & set(COMPONENT_KEYS)


def test_every_key_of_a_component_survives_the_round_trip():
    graph = decode_components(
        {
            "a": {"type": "mlp", "in_keys": ["x", "y"], "out_keys": "z", "init": {"type": "normal", "std": 0.5}},
            "b": {"type": "film", "in_keys": {"x": "z", "condition": "y"}, "freeze": True},
            "c": {"use": "a", "in_keys": "b"},
        },
        default_registry,
    )
    assert isinstance(graph, GraphSpec)
    assert decode_components(graph.encode(), default_registry) == graph
    assert graph.components["a"].out_keys == ("z",)
    assert isinstance(graph.components["a"].init, PartSpec)
    assert graph.components["b"].arguments == ("x", "condition")
    assert graph.components["b"].freeze
    assert graph.components["c"].use == "a"


@every_component
def test_a_wrong_option_in_a_file_is_a_config_error_with_line_and_path(slot, name, tmp_path):
    case = CASES[name][0] if name in CASES else one(case_of(name)[1].inputs[0])
    entry = {"type": name, "in_keys": input_names(case), **case.options, "no_such_option": 1}
    text = json.dumps({"inputs": {k: list(s.shape) for k, s in zip(input_names(case), case.inputs, strict=True)}})
    file = tmp_path / "graph.yaml"
    file.write_text(text[1:-1] + "\ncomponents:\n  part: " + json.dumps(entry) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        build_model(file)
    (problem,) = caught.value.problems
    assert problem.path == "components.part.no_such_option"
    assert problem.place is not None and problem.place.startswith(f"{file}:3:")


@pytest.mark.parametrize("name", default_registry.names("model"))
def test_a_wrong_option_of_a_model_is_a_config_error_with_its_path(name):
    from policysmith.config.experiment import decode_experiment

    model = {"type": name, **MODELS[name], "no_such_option": 1}
    with pytest.raises(ConfigError) as caught:
        decode_experiment(load({"format": 1, "model": model}), default_registry)
    assert [problem.path for problem in caught.value.problems] == ["model.no_such_option"]
