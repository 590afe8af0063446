"""Every message that users of the original know has its counterpart, with place, value, reason and remedy."""

from __future__ import annotations

import copy
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from policysmith.dialects.policy_constructor.graph_translation import check_torch
from policysmith.errors import ConfigError, PolicysmithError, RegistryError
from policysmith.graph import build_model
from policysmith.registry import default_registry

X = torch.linspace(-1, 1, 12).view(3, 4)
LINEAR = {"_type_": "nn.Linear", "in_features": 4, "out_features": 4}
GRAPH: dict[str, Any] = {
    "inputs": ["x", "y"],
    "modules": {"a": LINEAR, "b": LINEAR},
    "nodes": [
        {"name": "h", "call": "module:a", "args": ["$x"]},
        {"name": "k", "call": "module:b", "args": ["$y"]},
        {"name": "z", "call": "op:add", "args": ["$h", "$k"]},
    ],
    "outputs": ["z"],
}


def graph(**changes: Any) -> dict[str, Any]:
    return {"schema_version": 1, "model": {"graph": {**copy.deepcopy(GRAPH), **changes}}}


def sequential(*layers: Any, **changes: Any) -> dict[str, Any]:
    return {"schema_version": 1, "model": {"sequential": {"layers": list(layers or [LINEAR]), **changes}}}


def node(**changes: Any) -> dict[str, Any]:
    """The graph with changes to its last node."""
    changed = graph()
    changed["model"]["graph"]["nodes"][-1].update(changes)
    return changed


def top(**changes: Any) -> dict[str, Any]:
    return {**sequential(), **changes}


def problems(source: Any, **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        build_model(source, **options)
    return [(problem.path, problem.message) for problem in caught.value.problems]


TWO = [{"name": "a"}, {"name": "a"}]
NODES = {n["name"]: {k: v for k, v in n.items() if k != "name"} for n in GRAPH["nodes"]}
SPEC = "model.sequential.layers.0"
LAST = "model.graph.nodes.2"

# (the original's message, the configuration, where ours points, words of ours)
CASES: list[tuple[str, dict[str, Any], str, list[str]]] = [
    ("Unknown module type", sequential({"_type_": "nn.Linaer"}), f"{SPEC}._type_",
     ["nn.Linaer", "did you mean 'nn.Linear'?"]),
    ("Unknown op", node(call="op:addd"), f"{LAST}.call", ["unknown op 'addd'", "did you mean 'add'?"]),
    ("Unknown module", node(call="module:aa", args=["$h"]), f"{LAST}.call", ["no module 'aa'", "did you mean 'a'?"]),
    ("call must start with", node(call="add"), f"{LAST}.call", ["module:<name> or op:<name>", "'add'"]),
    (
        "Forward reference(s) not allowed",
        graph(nodes=[GRAPH["nodes"][2], *GRAPH["nodes"][:2]]),
        "model.graph.nodes.0",
        ["$h is a forward reference", "reorder"],
    ),
    ("Missing runtime value", node(args=["$h", "$kk"]), LAST, ["nothing gives $kk", "did you mean 'k'?"]),
    ("Invalid runtime ref", node(args=["$h", "$k.0"]), f"{LAST}.args.1", ["'$k.0'", "op:getitem"]),
    ("nodes mapping requires 'order'", graph(nodes=NODES), "model.graph.order", ["order: [h, k, z]"]),
    ("order omits a node", graph(nodes=NODES, order=["h", "z"]), "model.graph.order", ["leaves out 'k'"]),
    ("order names no node", graph(nodes=NODES, order=["h", "kk", "k", "z"]), "model.graph.order.1",
     ["'kk'", "did you mean"]),
    ("order twice", graph(nodes=NODES, order=["h", "k", "k", "z"]), "model.graph.order.2", ["'k' stands twice"]),
    ("order of a list", graph(order=["h"]), "model.graph.order", ["nodes that are a mapping"]),
    ("Output name collision", node(out="h"), f"{LAST}.out", ["'h'", "taken by an earlier call"]),
    ("Context name collision", node(out="x"), f"{LAST}.out", ["'x'", "an input's"]),
    ("twice in one out", node(out=["p", "p"]), f"{LAST}.out", ["'p'", "choose another"]),
    ("imports disabled", top(imports=["os"]), "imports.0", ["'os' is refused", "allow_targets="]),
    ("_target_ disabled", sequential({"_target_": "os.system"}), f"{SPEC}._target_",
     ["'os.system' is refused", "allow_targets="]),
    ("_target_ without a module", sequential({"_target_": "system"}), f"{SPEC}._target_", ["package.module.Name"]),
    ("both _type_ and _target_", sequential({**LINEAR, "_target_": "a.b"}), f"{SPEC}._target_", ["not both"]),
    ("Unknown reserved keys", sequential({**LINEAR, "_nam_": "x"}), f"{SPEC}._nam_", ["did you mean '_name_'?"]),
    ("Unknown kwargs", sequential({**LINEAR, "biass": True}), f"{SPEC}.biass", ["did you mean 'bias'?"]),
    ("_args_ must be a list", sequential({"_type_": "nn.Linear", "_args_": 4}), f"{SPEC}._args_",
     ["list of positional"]),
    ("_kwargs_ must be a mapping", sequential({"_type_": "nn.ReLU", "_kwargs_": [1]}), f"{SPEC}._kwargs_",
     ["mapping", "[1]"]),
    ("Duplicate kwargs keys", sequential({**LINEAR, "_kwargs_": {"in_features": 4}}), f"{SPEC}._kwargs_.in_features",
     ["given twice"]),
    ("by place and by name", sequential({**LINEAR, "_args_": [4]}), f"{SPEC}.in_features", ["by position and by name"]),
    ("too many _args_", sequential({"_type_": "nn.ReLU", "_args_": [False, 1]}), f"{SPEC}._args_",
     ["takes 1: inplace"]),
    ("missing option", sequential({"_type_": "nn.Linear", "in_features": 4}), f"{SPEC}.out_features", ["is missing"]),
    ("wrong option", sequential({**LINEAR, "out_features": True}), f"{SPEC}.out_features", ["an integer", "true"]),
    ("Instantiation failed", sequential({"_type_": "nn.GroupNorm", "_args_": [3, 4]}), SPEC,
     ["could not be built", "divisible"]),
    ("a spec is a mapping", sequential("nn.ReLU"), SPEC, ["expected a module", "'nn.ReLU'"]),
    ("a spec has a type", sequential({"type_": "nn.ReLU"}), SPEC, ["did you mean '_type_'?"]),

        ("Template cycle",
         top(templates={"a": {"_template_": "b"}, "b": {"_template_": "a"}}, params={"_template_": "a"}),
     "templates.b._template_", ["a → b → a"]),
    ("Unknown template", top(params={"_template_": "aa"}, templates={"a": {}}), "params._template_",
     ["'aa'", "did you mean"]),
    ("Interpolation cycle", top(params={"a": "${params.b}", "b": "${params.a}"}), "params.b",
     ["params.a → params.b → params.a"]),
    ("Missing env var", top(params={"a": "${env:PS_NOT_SET}"}), "params.a", ["PS_NOT_SET is not set", "default"]),
    ("Failed to cast env var", top(params={"a": "${env:int:PS_WORD}"}), "params.a", ["PS_WORD is no int (its value"]),
    ("schema_version must be 1", {**top(), "schema_version": 2}, "schema_version", ["must be 1", "2"]),
    ("schema_version is no bool", {**top(), "schema_version": True}, "schema_version", ["must be 1", "True"]),
    ("schema_version is missing", {"model": sequential()["model"]}, "schema_version", ["must be 1", "none"]),
    ("missing 'model'", {"schema_version": 1}, "model", ["is missing", "sequential"]),
    ("neither", {"schema_version": 1, "model": {}}, "model", ["'sequential' or 'graph'"]),
    ("both sequential and graph", {"schema_version": 1, "model": {**graph()["model"], **sequential()["model"]}},
     "model.graph", ["not both"]),
    ("sequential one input", sequential(inputs=["x", "y"]), "model.sequential.inputs", ["exactly one input", "x, y"]),
    ("sequential outputs", sequential(outputs=["h7"]), "model.sequential.outputs.0", ["'h7'", "there are: x, h0"]),
    ("sequential without layers", {"schema_version": 1, "model": {"sequential": {}}}, "model.sequential.layers",
     ["list of modules"]),
    ("Invalid name (input)", graph(inputs=["x", "y", "1z"]), "model.graph.inputs.2", ["invalid name '1z'"]),
    ("Invalid name (module)", graph(modules={**GRAPH["modules"], "a b": LINEAR}), "model.graph.modules.a b", ["'a b'"]),
    ("Invalid name (node)", node(name="z-1"), f"{LAST}.name", ["'z-1'"]),
    ("Invalid name (out)", node(out="1"), f"{LAST}.out", ["invalid name '1'"]),
    ("module named keys", graph(modules={**GRAPH["modules"], "keys": LINEAR}), "model.graph.modules.keys",
     ["reserved", "'keys_'"]),
    ("module named type", graph(modules={**GRAPH["modules"], "type": LINEAR}), "model.graph.modules.type",
     ["reserved"]),
    ("duplicate inputs", graph(inputs=["x", "y", "x"]), "model.graph.inputs.2", ["'x' stands twice"]),
    ("no inputs", graph(inputs=[]), "model.graph.inputs", ["required", "[x]"]),
    ("unused module", graph(modules={**GRAPH["modules"], "c": LINEAR}), "model.graph.modules.c", ["never called"]),
    ("unknown key at the top", top(modle={}), "modle", ["did you mean 'model'?"]),
    ("unknown key in a model", {"schema_version": 1, "model": {"sequental": {}}}, "model.sequental",
     ["did you mean 'sequential'?"]),
    ("unknown key in a graph", graph(repeat=3), "model.graph.repeat", ["unknown key", "nodes"]),
    ("unknown key in a node", node(argz=[]), f"{LAST}.argz", ["did you mean 'args'?"]),
    ("unknown setting", top(settings={"stict": True}), "settings.stict", ["did you mean 'strict'?"]),
    ("wrong setting", top(settings={"strict": "yes"}), "settings.strict", ["true or false", "'yes'"]),
    ("nodes and steps", graph(steps=[]), "model.graph.steps", ["not both"]),
    ("neither nodes nor steps", {"schema_version": 1, "model": {"graph": {"inputs": ["x"], "outputs": ["x"]}}},
     "model.graph", ["'nodes' or 'steps'"]),
    ("step.out is required", {"schema_version": 1,
     "model": {"graph": {"inputs": ["x"], "steps": [{"call": "op:identity", "args": ["$x"]}], "outputs": ["x"]}}},
     "model.graph.steps.0.out", ["required"]),
    ("a node needs a name", graph(nodes=[{"call": "op:identity", "args": ["$x"]}]), "model.graph.nodes.0.name",
     ["required"]),
    ("duplicate node", graph(nodes=[*GRAPH["nodes"], {"name": "h", "call": "op:identity", "args": ["$h"], "out": "q"}]),
     "model.graph.nodes.3.name", ["another node 'h'"]),
    ("a node is a mapping", graph(nodes=[3]), "model.graph.nodes.0", ["mapping with 'call'", "3"]),
    ("args is a list", node(args="$h"), f"{LAST}.args", ["list of positional arguments"]),
    ("kwargs is a mapping", node(kwargs=[1]), f"{LAST}.kwargs", ["mapping of arguments"]),
    ("wrong out", node(out=3), f"{LAST}.out", ["a name, a list of names"]),
    ("Unexpected kwargs", node(call="op:cat", args=[["$h", "$k"]], kwargs={"dmi": 1}), f"{LAST}.kwargs.dmi",
     ["did you mean 'dim'?"]),
    ("Too many positional args", node(args=["$h", "$k", 3]), f"{LAST}.args", ["3 positional arguments", "takes 2"]),
    ("Missing required input", node(args=["$h"]), f"{LAST}.args", ["required: b"]),

        ("of a module's forward",
         graph(nodes=[{"name": "h", "call": "module:a", "args": ["$x", "$y"]}, *GRAPH["nodes"][1:]]),
     "model.graph.nodes.0.args", ["2 positional arguments", "takes 1: input", "module 'a'"]),
    ("outputs required", {"schema_version": 1, "model": {"graph": {k: v for k, v in GRAPH.items() if k != "outputs"}}},
     "model.graph.outputs", ["required"]),
    ("outputs reference missing keys", graph(outputs=["zz"]), "model.graph.outputs.0", ["'zz'", "did you mean 'z'?"]),
    ("outputs form", graph(outputs=3), "model.graph.outputs", ["a list of names, or a mapping", "3"]),
    ("return=single requires exactly one output", graph(outputs=["z", "h"], **{"return": "single"}),
     "model.graph.return", ["exactly one", "2"]),
    ("return=dict requires outputs mapping", graph(**{"return": "dict"}), "model.graph.return",
     ["outputs are a list", "'dict'"]),
    ("return=tuple requires outputs list", graph(outputs={"q": "z"}, **{"return": "tuple"}), "model.graph.return",
     ["outputs are a mapping"]),
    ("return must be one of", graph(**{"return": "tupel"}), "model.graph.return", ["did you mean 'tuple'?"]),
    ("mlp of one width", sequential({"_type_": "mlp", "dims": [4]}), f"{SPEC}.dims", ["at least 2"]),
    ("mlp, null inside", sequential({"_type_": "mlp", "dims": [4, None, 2]}), SPEC, ["only the first may be null"]),

        ("an activation is a module", sequential({"_type_": "mlp", "dims": [4, 4], "activation": "relu"}),
         f"{SPEC}.activation", ["{_type_: nn.ReLU}"]),
    ("nothing is inferred", sequential({"_type_": "nn.PReLU"}, {"_type_": "nn.RMSNorm"}), "model.sequential.layers.1",
     ["normalized_shape", "infers nothing"]),
]  # fmt: skip


@pytest.mark.parametrize(("original", "config", "path", "words"), CASES, ids=[case[0] for case in CASES])
def test_a_message_of_the_original_has_its_counterpart(original, config, path, words, monkeypatch):
    monkeypatch.setenv("PS_WORD", "word")
    monkeypatch.delenv("PS_NOT_SET", raising=False)
    found = problems(config)
    assert path in dict(found), (original, found)
    message = next(text for at, text in found if at == path)
    assert all(word in message for word in words), message


TEXTS: list[tuple[str, str, list[str]]] = [
    ("Invalid YAML", "schema_version: [1\n", ["not valid YAML"]),
    ("Duplicate mapping key", "schema_version: 1\nmodel: {}\nmodel: {}\n",
     ["v1.yaml:3:1", "duplicate key 'model'", "v1.yaml:2:1"]),
    ("keys must be strings", "schema_version: 1\n1: 2\n", ["v1.yaml:2:1", "key 1 is not a string"]),
    ("defaults cycle", "schema_version: 1\ndefaults: [v1.yaml]\n", ["defaults form a cycle"]),
    ("defaults without a file", "schema_version: 1\ndefaults: [nothing.yaml]\n", ["nothing.yaml does not exist"]),
    ("keyed merge: duplicate", "schema_version: 1\nparams: {a: {_merge_: keyed, key: n, _value_: [{n: p}, {n: p}]}}\n",
     ["params.a.1.n", "'p' stands twice"]),
    ("keyed merge: non-mapping", "schema_version: 1\nparams: {a: {_merge_: keyed, key: n, _value_: [3]}}\n",
     ["keyed merges mappings", "3"]),
    ("keyed merge: missing field", "schema_version: 1\nparams: {a: {_merge_: keyed, key: n, _value_: [{m: p}]}}\n",
     ["no text as its 'n'"]),
    ("keyed merge: no key", "schema_version: 1\nparams: {a: {_merge_: keyed, _value_: []}}\n", ["keyed needs 'key'"]),
    ("merge mode", "schema_version: 1\nparams: {a: {_merge_: apend, _value_: []}}\n",
     ["'apend'", "did you mean 'append'?"]),
    ("merge without a value", "schema_version: 1\nparams: {a: {_merge_: append}}\n", ["_value_ is missing"]),
    ("merge of no list", "schema_version: 1\nparams: {a: {_merge_: append, _value_: 3}}\n",
     ["append takes a list, found 3"]),
    ("merge key", "schema_version: 1\nparams: {a: {_merge_: append, key: n, _value_: []}}\n",
     ["'key' belongs to keyed"]),
    ("merge, other key", "schema_version: 1\nparams: {a: {_merge_: append, _valu_: []}}\n",
     ["did you mean '_value_'?"]),
    ("merge into no list", "schema_version: 1\ndefaults: [base.yaml]\nparams: {a: {_merge_: append, _value_: []}}\n",
     ["there is 3 below it"]),
]  # fmt: skip


@pytest.mark.parametrize(("original", "text", "words"), TEXTS, ids=[case[0] for case in TEXTS])
def test_a_mistake_in_a_file_is_told_with_its_line(original, text, words, tmp_path):
    (tmp_path / "base.yaml").write_text("params: {a: 3}\n", encoding="utf-8")
    (tmp_path / "v1.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        build_model(tmp_path / "v1.yaml")
    assert "v1.yaml:" in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_all_problems_come_at_once_in_the_order_of_the_text(tmp_path):
    file = tmp_path / "v1.yaml"
    file.write_text(
        textwrap.dedent("""\
            schema_version: 1
            model:
              graph:
                inputs: [x]
                modules:
                  a: {_type_: nn.Linaer}
                  b: {_type_: nn.Linear, in_features: 4, out_featurs: 2}
                nodes:
                  - {name: h, call: module:a, args: [$y]}
                outputs: [q]
            repeat: 3
            """),
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        build_model(file)
    lines = str(caught.value).splitlines()
    numbers = [int(line.removeprefix(f"{file}:").split(":", 1)[0]) for line in lines]
    assert numbers == sorted(numbers) and set(numbers) == {6, 7, 9, 10, 11}
    assert len(lines) == 7  # b lacks out_features, has out_featurs, and is never called


@pytest.mark.parametrize(
    ("out", "result", "words"),
    [
        (["p", "q"], "(x, x, x)", ["out has 2 names, p, q, for 3 results"]),
        (["p", "q"], "x", ["a tuple or a list is expected", "Tensor"]),
        ({"left": "p"}, "(x, x)", ["a dict is expected", "tuple"]),
        ({"left": "p"}, "{'right': x}", ["'left'", "keys: 'right'"]),
    ],
    ids=["Output length mismatch", "Expected tuple/list", "Expected dict", "missing key"],
)
def test_a_result_that_cannot_be_taken_apart_names_its_step(out, result, words, tmp_path):
    registry = default_registry.copy()
    registry.register("split", slot="op")(eval(f"lambda x: {result}"))
    config = graph(
        inputs=["x"], modules={}, nodes=[{"name": "n", "call": "op:split", "args": ["$x"], "out": out}], outputs=["p"]
    )
    for options in ({}, {"inputs": {"x": [4]}}):
        with pytest.raises(PolicysmithError) as caught:
            build_model(config, registry, **options)(X)
        assert all(word in str(caught.value) for word in ["step 0 (op:split)", *words]), str(caught.value)


def test_a_step_that_fails_is_named_with_what_it_read_at_the_first_call_and_later(tmp_path):
    (tmp_path / "v1.yaml").write_text(
        "schema_version: 1\nmodel:\n  sequential:\n    layers:\n      - {_type_: nn.Linear, _args_: [4, 3]}\n"
        "      - {_type_: nn.Linear, _args_: [3, 2]}\n",
        encoding="utf-8",
    )
    model = build_model(tmp_path / "v1.yaml")
    for _ in range(2):
        with pytest.raises(PolicysmithError, match=r"step 0 \(module:layer0\) at .*v1.yaml:5:\d+ failed: .*x \(3, 5\)"):
            model(torch.zeros(3, 5))
        assert model(X).shape == (3, 2)


def test_shapes_that_do_not_fit_are_a_problem_of_the_configuration_once_inputs_are_given():
    found = problems(sequential(LINEAR, {**LINEAR, "in_features": 5}), inputs={"x": [4]})
    assert found[0][0] == "model.sequential.layers.1" and "h0 (13, 4)" in found[0][1]


@pytest.mark.parametrize(
    ("inputs", "word"), [({"z": [4]}, "no input 'z'"), ({"x": 4}, "event shape"), ({"x": [4]}, "missing 'y'")]
)
def test_inputs_that_are_not_the_graphs_are_refused(inputs, word):
    assert any(word in message for _, message in problems(graph(), inputs=inputs))


def test_a_taken_name_is_refused_and_a_second_build_is_not(tmp_path, monkeypatch):
    (tmp_path / "ps_v1_blocks.py").write_text(
        "import torch\n\nclass Twice(torch.nn.Module):\n    def forward(self, x):\n        return 2 * x\n\n"
        "def register(registry):\n"
        "    registry.register_module('twice', Twice, signature_policy='strict', tags=('a',))\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {**sequential({"_type_": "twice"}), "imports": ["ps_v1_blocks"]}
    registry = default_registry.copy()
    for _ in range(2):
        model = build_model(config, registry, allow_targets=("ps_v1_blocks.",))
        assert torch.equal(model(X), 2 * X)
    other = default_registry.copy()
    other.register("twice")(torch.nn.Identity)
    (found,) = problems(config, registry=other, allow_targets=["ps_v1_blocks"])
    assert found[0] == "imports.0" and "already registered" in found[1]
    with pytest.raises(RegistryError, match="already registered"):
        other.register("twice")(torch.nn.ReLU)
    assert "twice" not in default_registry.names("component")


class TestTargets:
    """Code that a file names is reached only where the caller says so."""

    @pytest.fixture(autouse=True)
    def package(self, tmp_path, monkeypatch):
        (tmp_path / "ps_v1_targets.py").write_text(
            "import os\nfrom torch import nn\n\nCOUNT = 3\n\nclass Scale(nn.Module):\n"
            "    def __init__(self, by):\n        super().__init__()\n        self.by = by\n\n"
            "    def forward(self, x):\n        return self.by * x\n\ndef number():\n    return 3\n",
            encoding="utf-8",
        )
        (tmp_path / "ps_v1_broken.py").write_text("1 / 0\n", encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        yield
        sys.modules.pop("ps_v1_targets", None)

    def test_an_allowed_one_is_built(self):
        model = build_model(sequential({"_target_": "ps_v1_targets.Scale", "by": 3}), allow_targets=("ps_v1_targets.",))
        assert torch.equal(model(X), 3 * X)

    @pytest.mark.parametrize(
        ("target", "words"),
        [
            ("ps_v1_targets.os.system", ["not below", "ps_v1_targets"]),
            ("ps_v1_targets.nn", ["not below"]),
            ("ps_v1_targets.COUNT", ["not below"]),
            ("ps_v1_targets.Nothing", ["has no 'Nothing'"]),
            ("ps_v1_targets_evil.X", ["not below ps_v1_targets"]),
            ("os.system", ["not below ps_v1_targets"]),
        ],
    )
    def test_nothing_beside_it_is_reached(self, target, words):
        found = problems(sequential({"_target_": target}), allow_targets=("ps_v1_targets",))
        assert found[0][0] == f"{SPEC}._target_"
        if target != "ps_v1_targets.os.system":  # a module of that name does not exist, which is said first
            assert all(word in found[0][1] for word in words), found
        else:
            assert "failed to import 'ps_v1_targets.os'" in found[0][1]

    def test_settings_in_a_file_allow_nothing(self):
        settings = {"allow_target": True, "allow_imports": True, "allowed_import_prefixes": ["os", "ps_v1_targets."]}
        config = {
            **sequential({"_target_": "ps_v1_targets.Scale", "by": 3}),
            "settings": settings,
            "imports": ["ps_v1_targets"],
        }
        assert [path for path, _ in problems(config)] == ["imports.0", f"{SPEC}._target_"]
        assert "ps_v1_targets" not in sys.modules

    def test_an_import_that_fails_is_told(self):
        (found,) = problems(top(imports=["ps_v1_broken"]), allow_targets=["ps_v1_broken"])
        assert found[0] == "imports.0" and "failed to import 'ps_v1_broken': ZeroDivisionError" in found[1]

    def test_what_gives_no_module_is_told(self):
        (found,) = problems(sequential({"_target_": "ps_v1_targets.number"}), allow_targets=["ps_v1_targets"])
        assert found[0] == SPEC and "gave a int; a module" in found[1]

    def test_arguments_are_checked_by_the_signature(self):
        found = problems(sequential({"_target_": "ps_v1_targets.Scale", "bye": 3}), allow_targets=["ps_v1_targets"])
        assert any(path == f"{SPEC}.bye" and "did you mean 'by'?" in text for path, text in found)

    @pytest.mark.parametrize("prefixes", ["", [""], ["."]])
    def test_an_empty_prefix_does_not_allow_all(self, prefixes):
        with pytest.raises(ConfigError):
            build_model(sequential({"_target_": "os.getcwd"}), allow_targets=prefixes)


@pytest.mark.parametrize(("version", "word"), [("2.1.0", "too old"), ("nightly", "can't be read"), ("1.13", "too old")])
def test_a_torch_that_does_not_fit_is_told(version, word):
    with pytest.raises(PolicysmithError, match=word):
        check_torch(version)


def test_the_torch_here_fits():
    check_torch(torch.__version__)
    assert Path(torch.__file__).is_file()
