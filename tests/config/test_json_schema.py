"""The JSON Schema says what the loader says: what one takes the other takes, and what one refuses so does the other."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from annotated_types import Ge, Gt, Lt
from pydantic import ValidationError

from policysmith.api import presets
from policysmith.config.experiment import decode_experiment
from policysmith.config.json_schema import (
    COMPONENT_KEYS,
    argument_notes,
    experiment_schema,
    option_text,
    plain_text,
    type_options,
)
from policysmith.config.load import load
from policysmith.config.preset_files import PRESETS
from policysmith.graph import spec
from policysmith.registry import Infer, Registry, Slot, default_registry

MINIMAL = {"model": "mlp"}
KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
PARTS = {"$ref", "anyOf", "allOf", "if", "then", "not"}
PLAIN = {
    "type", "enum", "const", "pattern", "required", "properties", "additionalProperties", "propertyNames",
    "minProperties", "items", "minItems", "uniqueItems", "minLength",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
}  # fmt: skip
NOTES = {"description", "default", "title", "definitions", "$schema", "enumDescriptions"}


@pytest.fixture(scope="module")
def schema():
    return experiment_schema(default_registry)


def resolve(reference, root):
    assert reference.startswith("#/")
    for part in reference[2:].split("/"):
        root = root[re.sub("%2F", "/", part, flags=re.IGNORECASE).replace("~1", "/").replace("~0", "~")]
    return root


def fits(value, schema, root):
    """A JSON Schema validator for the keywords we use; an unknown keyword is an error."""
    assert set(schema) <= PARTS | PLAIN | NOTES, set(schema) - PARTS - PLAIN - NOTES
    return _fits_parts(value, schema, root) and _fits_scalar(value, schema) and _fits_inside(value, schema, root)


def _fits_parts(value, schema, root):
    return (
        ("$ref" not in schema or fits(value, resolve(schema["$ref"], root), root))
        and ("anyOf" not in schema or any(fits(value, branch, root) for branch in schema["anyOf"]))
        and all(fits(value, branch, root) for branch in schema.get("allOf", ()))
        and ("not" not in schema or not fits(value, schema["not"], root))
        and ("if" not in schema or not fits(value, schema["if"], root) or fits(value, schema.get("then", {}), root))
    )


def _fits_scalar(value, schema):
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    number = isinstance(value, int | float) and not isinstance(value, bool)
    right_kind = [isinstance(value, KINDS[k]) and (k == "boolean" or not isinstance(value, bool)) for k in kinds]
    return (
        (not kinds or any(right_kind))
        and ("enum" not in schema or value in schema["enum"])
        and ("const" not in schema or value == schema["const"])
        and (not isinstance(value, str) or re.search(schema.get("pattern", ""), value) is not None)
        and (not isinstance(value, str) or len(value) >= schema.get("minLength", 0))
        and (not number or value >= schema.get("minimum", value))
        and (not number or value <= schema.get("maximum", value))
        and (not number or "exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and (not number or "exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
    )


def _fits_inside(value, schema, root):
    if isinstance(value, list):
        return (
            len(value) >= schema.get("minItems", 0)
            and (not schema.get("uniqueItems") or len({json.dumps(item) for item in value}) == len(value))
            and all(fits(item, schema.get("items", {}), root) for item in value)
        )
    if not isinstance(value, dict):
        return True
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    return (
        set(schema.get("required", ())) <= set(value)
        and len(value) >= schema.get("minProperties", 0)
        and all(fits(key, schema.get("propertyNames", {}), root) for key in value)
        and all(fits(inner, known[key], root) for key, inner in value.items() if key in known)
        and all(others is True or (others and fits(v, others, root)) for k, v in value.items() if k not in known)
    )


def accepted(data, schema):
    return fits(data, schema, schema)


def taken(data):
    """Whether the loader takes it."""
    try:
        decode_experiment(load(data), default_registry)
    except ValueError:
        return False
    return True


def example(option):
    """A value that an option takes."""
    if "anyOf" in option:
        return example(option["anyOf"][0])
    items = [] if "x-slot" in option.get("items", {}) else [2]
    values = {"integer": 2, "number": 0.5, "array": items, "string": "x", "boolean": True, "object": {}}
    return option["enum"][0] if "enum" in option else values[option["type"]]


NEEDS_MEANING = {
    "graph_model": {"config": {"components": {"a": {"type": "nn.ReLU", "in_keys": "x"}}}},
    "factory_model": {"factory": "policy_constructor", "network": "main"},
}


def stated(entry):
    """A type with its required options."""
    needed = {n: example(o) for n, o in type_options(entry).items() if "default" not in o and "x-slot" not in o}
    return {"type": entry.name} | needed | NEEDS_MEANING.get(entry.name, {})


def typed():
    """Every type but models, whose required options are whole graphs; by slot and name."""
    return [pytest.param(e, id=f"{e.slot}.{e.name}") for e in default_registry if e.slot not in ("model", "section")]


def place(schema, slot):
    return schema["definitions"]["wired" if slot == "component" else slot]


def in_its_place(entry, data):
    return {**data, "in_keys": "observation"} if entry.slot == "component" else data


def references(schema):
    if isinstance(schema, dict):
        yield from [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
        for inner in schema.values():
            yield from references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from references(inner)


def test_every_reference_resolves(schema):
    found = set(references(schema))
    assert len(found) > 50
    for reference in found:
        assert isinstance(resolve(reference, schema), dict)


def test_it_is_plain_json_and_the_same_each_time(schema):
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema == experiment_schema(default_registry)


def test_it_is_a_valid_schema(schema):
    pytest.importorskip("jsonschema").Draft7Validator.check_schema(schema)


def test_an_independent_validator_agrees(schema):
    validator = pytest.importorskip("jsonschema").Draft7Validator(schema)
    for name in presets():
        data = yaml.safe_load((PRESETS / f"{name}.yaml").read_text())
        assert validator.is_valid(data)
        assert not validator.is_valid({**data, "model": {**data["model"], "misspelt": 1}})


def test_there_is_a_closed_definition_for_every_type(schema):
    for entry in default_registry:
        if entry.slot == "section":  # a key at the top
            assert schema["properties"][entry.name]["description"]
            continue
        definition = schema["definitions"][f"{entry.slot}.{entry.name}"]
        assert definition["additionalProperties"] is False
        assert definition["properties"]["type"] == {"const": entry.name}
        assert definition["description"] == plain_text(definition["description"])


@pytest.mark.parametrize("name", presets())
def test_presets_fit_as_written_and_with_every_default_written_out(schema, name):
    document = load(PRESETS / f"{name}.yaml")
    assert accepted(yaml.safe_load((PRESETS / f"{name}.yaml").read_text()), schema)
    assert accepted(decode_experiment(document, default_registry).resolved(), schema)


@pytest.mark.parametrize("entry", typed())
def test_what_a_type_decodes_to_fits_and_a_misspelt_option_does_not(schema, entry):
    data = default_registry.decode(entry.slot, stated(entry)).encode()
    data = in_its_place(entry, {key: value for key, value in data.items() if key not in COMPONENT_KEYS})
    assert fits(data, place(schema, entry.slot), schema)
    assert not fits({**data, "misspelt": 1}, place(schema, entry.slot), schema)


@pytest.mark.parametrize("entry", typed())
def test_required_options_are_required_in_both(schema, entry):
    bare, needed = {"type": entry.name}, set(stated(entry)) - {"type"}
    assert fits(in_its_place(entry, bare), place(schema, entry.slot), schema) == (not needed)
    if needed:
        with pytest.raises(ValidationError):
            default_registry.decode(entry.slot, bare)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"model": "mpl"},
        {"model": {"type": "mpl"}},
        {"model": {"hidden": [64]}},
        {"model": {"type": "mlp", "hiden": [64]}},
        {"model": {"type": "mlp", "hidden": [0]}},
        {"model": {"type": "mlp", "hidden": 64}},
        {"model": {"type": "mlp", "hidden": ["wide"]}},
        {"model": {"type": "mlp", "shared": "no"}},
        {"model": {"type": "mlp", "activation": "reluu"}},
        {"model": {"type": "mlp", "activation": {"type": "gelu", "approximate": 1}}},
        {"model": {"type": "graph"}},
        {"model": {"type": "graph", "components": {}}},
        {"model": {"type": "graph", "components": {"a": "mlp"}}},
        {"model": {"type": "graph", "components": {"a": {"type": "mlp"}}}},
        {"model": {"type": "graph", "components": {"a": {"in_keys": "observation"}}}},
        {"model": {"type": "graph", "components": {"a": {"use": "b", "in_keys": "x", "hidden": [1]}}}},
        {"model": {"type": "graph", "components": {"1a": {"type": "mlp", "in_keys": "observation"}}}},
        {"model": {"type": "graph", "components": {"a": {"type": "mlp", "in_keys": "x", "out_keys": ["y", "y"]}}}},
        {"model": {"type": "graph", "components": {"a": {"type": "mlp", "in_keys": "x", "freeze": 1}}}},
        {**MINIMAL, "seed": -1},
        {**MINIMAL, "training": "pppo"},
        {**MINIMAL, "training": {"type": "ppo", "learning_rate": {"type": "linear"}}},
        {**MINIMAL, "environment": {}},
        {**MINIMAL, "environment": {"id": "CartPole-v1", "num_envs": 0}},
        {**MINIMAL, "environment": {"id": "CartPole-v1", "num_env": 4}},
        {**MINIMAL, "evaluation": {"episodes": 1.5}},
        {**MINIMAL, "enviroment": {"id": "CartPole-v1"}},
        {**MINIMAL, "execution": {"amp": "sometimes"}},
        {**MINIMAL, "execution": {"channel_last": True}},
        {**MINIMAL, "execution": "paralel"},
        {**MINIMAL, "execution": {"executor": "threads"}},
        {**MINIMAL, "execution": {"compile_backend": "inducter"}},
        {**MINIMAL, "spaces": {"observation": {"type": "box", "shape": [3]}}},
        {**MINIMAL, "spaces": {"observation": {"type": "box", "shape": [0]}, "action": {"type": "discrete", "n": 2}}},
        {**MINIMAL, "spaces": {"observation": "discrete", "action": {"type": "discret", "n": 2}}},
    ],
    ids=json.dumps,
)
def test_what_the_loader_refuses_does_not_fit(schema, data):
    assert not taken(data)
    assert not accepted(data, schema)


@pytest.mark.parametrize(
    "data",
    [
        MINIMAL,
        {"model": {"type": "mlp", "activation": {"type": "gelu", "approximate": True}, "norm": None}},
        {**MINIMAL, "seed": None, "training": "ppo", "evaluation": {"episodes": 5}},
        {**MINIMAL, "training": {"type": "ppo", "learning_rate": 1e-3}},
        {**MINIMAL, "training": {"type": "ppo", "learning_rate": {"type": "linear", "start": 1e-3}}},
        {"model": {"type": "graph", "components": {"a": {"type": "mlp", "in_keys": ["x", "y"], "freeze": True}}}},
        {"model": {"type": "graph", "components": {"a": {"type": "film", "in_keys": {"x": "a", "condition": "b"}}}}},
        {
            "model": {
                "type": "graph",
                "components": {"a": {"type": "mlp", "in_keys": "x"}, "b": {"use": "a", "in_keys": "y"}},
            }
        },
        {"model": {"type": "graph", "components": {"a": {"type": "mlp", "in_keys": "x", "init": "orthogonal"}}}},
        {**MINIMAL, "execution": {"amp": "auto", "compile": True, "compile_dynamic": None, "channels_last": False}},
        {**MINIMAL, "execution": {"amp": "${env:bool:NOWHERE,true}"}},
        {**MINIMAL, "execution": "parallel"},
        {
            **MINIMAL,
            "spaces": {
                "observation": {
                    "type": "dict",
                    "spaces": {
                        "image": {"type": "box", "shape": [3, 8, 8], "dtype": "uint8"},
                        "rest": {"type": "tuple", "spaces": [{"type": "multi_discrete", "nvec": [2, 3]}]},
                    },
                },
                "action": {"type": "box", "shape": [2], "low": -1, "high": [1, 2.5]},
            },
        },
        {"model": {"type": "mlp", "hidden": ["${seed}"], "dropout": "${env:float:NOWHERE,0.1}"}, "seed": 1},
        {"templates": {"t": {"hidden": [8]}}, "model": {"type": "mlp", "template": "t"}},
        {
            "templates": {"t": {"type": "mlp", "in_keys": "x"}},
            "model": {"type": "graph", "components": {"a": {"template": "t"}}},
        },
    ],
    ids=json.dumps,
)
def test_what_the_loader_takes_fits(schema, data):
    assert taken(data)
    assert accepted(data, schema)


def test_a_file_that_is_laid_on_others_needs_no_model(schema):
    assert accepted({"defaults": ["base.yaml"], "seed": 3}, schema)


def test_inferred_options_are_left_out(schema):
    definition = schema["definitions"]["component.mlp"]
    assert "in_features" not in definition["properties"]
    assert set(definition["properties"]) == {
        "type", "hidden", "activation", "norm", "dropout", "out_features", "template", *COMPONENT_KEYS,
    }  # fmt: skip


def test_component_keys_are_those_of_the_graph():
    assert {"type", *COMPONENT_KEYS} == set(spec.COMPONENT_KEYS)


def test_the_surface_is_frozen(schema):
    """What a file may say at the top and in its sections; a change is a line in the CHANGELOG."""
    sections = {name: _properties(value) for name, value in schema["properties"].items()}
    assert {name: inner for name, inner in sections.items() if inner} == {
        "environment": [
            "autoreset", "check", "id", "num_envs", "options", "template", "vectorization", "wrappers",
        ],
        "evaluation": ["deterministic", "episodes", "every", "seed", "template"],
        "limits": ["environments", "memory", "modules", "template"],
        "execution": [
            "amp", "channels_last", "compile", "compile_backend", "compile_dynamic", "compile_mode", "executor",
            "strict_masks", "template",
        ],
        "observation": ["codes", "exclude", "layout", "normalize", "scale", "template"],
        "self_play": ["past_share", "pool", "random_share", "snapshot_every", "template"],
        "spaces": ["action", "observation", "template"],
        "store": ["every", "name", "template", "uri"],
    }  # fmt: skip
    assert sorted(sections) == [
        "defaults", "environment", "evaluation", "execution", "format", "limits", "model", "name", "observation",
        "seed", "self_play", "spaces", "store", "template", "templates", "training",
    ]  # fmt: skip


def _properties(value):
    inner = [key for branch in value.get("anyOf", ()) for key in _properties(branch)]
    return sorted([*value.get("properties", ()), *inner])


def test_everything_at_the_top_is_described(schema):
    assert [name for name, value in schema["properties"].items() if not value.get("description")] == []


def test_a_registry_of_its_own_gives_its_own_types_whatever_their_names():
    registry = Registry()

    @registry.register("my/part~1", slot="component")
    def _part(width: Annotated[int, Gt(0)], size: Annotated[int, Infer("features")], depth: int = 2):
        """A part.

        Args:
            width: how wide
                it is.
            depth: layers.
        """

    @registry.register("deep", slot="norm")
    def _norm(inner: Annotated[object, Slot("feedforward")] = None, rate: Annotated[float, Ge(0), Lt(1)] = 0.0):
        pass

    schema = experiment_schema(registry)
    assert {n for n in schema["definitions"] if "." in n} == {"component.my/part~1", "norm.deep"}
    assert all(isinstance(resolve(reference, schema), dict) for reference in references(schema))
    options = schema["definitions"]["component.my/part~1"]["properties"]
    assert options["width"]["description"] == "how wide it is."
    assert options["depth"]["default"] == 2
    assert "size" not in options
    data = {"type": "my/part~1", "in_keys": "x", "width": 3}
    assert fits(data, place(schema, "component"), schema)
    assert not fits({**data, "width": 0}, place(schema, "component"), schema)
    assert fits("anything", place(schema, "feedforward"), schema)


def test_a_part_as_default_is_written_out():
    registry = Registry()
    registry.register("plain", slot="norm")(lambda: None)
    default = registry.decode("norm", "plain")

    @registry.register("outer", slot="model")
    def _outer(norm: Annotated[object, Slot("norm")] = default):
        pass

    outer = experiment_schema(registry)["definitions"]["model.outer"]
    assert outer["properties"]["norm"]["default"] == {"type": "plain"}


def test_an_empty_registry_has_a_schema_too():
    schema = experiment_schema(Registry())
    assert all(isinstance(resolve(reference, schema), dict) for reference in references(schema))
    assert accepted({"defaults": ["base"], "seed": 1}, schema)
    assert not accepted({"defaults": ["base"], "sead": 1}, schema)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"type": "integer", "exclusiveMinimum": 0}, "integer > 0"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "number ≥ 0 and < 1"),
        ({"type": "array", "items": {"type": "integer", "minimum": 1}}, "list of integers ≥ 1"),
        ({"type": "array", "items": {"type": "string"}}, "list of texts"),
        ({"enum": ["sync", "async"], "type": "string"}, "sync or async"),
        ({"anyOf": [{"x-slot": "norm"}, {"type": "null"}]}, "norm or null"),
        ({"type": "boolean"}, "true or false"),
        ({"type": "object", "x-components": True}, "components"),
        ({"type": "array"}, "list"),
        ({}, "anything"),
    ],
)
def test_options_in_words(option, text):
    assert option_text(option) == text


def test_argument_notes_come_from_the_docstring():
    doc = """Do it.

    Args:
        size (int or tuple, optional): How
            large. Default: :math:`3`
        *rest: More.

            And more.

    Returns:
        nothing: at all.
    """
    assert argument_notes(inspect.cleandoc(doc)) == {"size": "How large. Default: 3", "rest": "More. And more."}
    assert argument_notes("Nothing of arguments.") == {}


def test_marks_of_restructured_text_are_removed():
    assert plain_text("Zeroes with :attr:`p`,\n    see :class:`~nn.Dropout` and ``x``.") == (
        "Zeroes with p, see nn.Dropout and `x`."
    )


def test_importing_it_imports_no_torch():
    code = "import sys, policysmith.config.json_schema; print([m for m in ('torch', 'gymnasium') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert result.stdout.strip() == "[]"


def test_an_option_is_described_where_it_is_written():
    """By the type itself, by the class that lends it its constructor, or by what its options are taken from."""
    options = {name: type_options(default_registry.entry(slot, name)) for slot, name in DESCRIBED}
    notes = {name: {n: schema.get("description") for n, schema in found.items()} for name, found in options.items()}
    assert notes["window"]["size"] == "How many steps the window holds, the token itself included."
    assert notes["window"]["heads"] == notes["mha"]["heads"] == "How many heads read."
    assert notes["lstm"]["hidden_size"] == "The width of the state and of the output."
    assert notes["gtrxl"]["layers"] == "How many blocks it has."
    assert notes["gtrxl"]["attention"] == "How tokens read each other."


DESCRIBED = (("attention", "mha"), ("attention", "window"), ("component", "lstm"), ("component", "gtrxl"))
