"""A configuration is loaded whole: data, places, and every problem at once."""

from __future__ import annotations

import copy
import math
import os
import pathlib
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from policysmith.config.load import Document, Place, dotted, load
from policysmith.errors import ConfigError, Problem


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "policy.yaml") -> Path:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def problems(source, overrides=()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(source, overrides)
    return [str(problem) for problem in caught.value.problems]


POLICY = """\
format: 1
model:
  type: graph
  components:
    trunk: {type: mlp, hidden: [64, 32]}
    policy:
      type: action_head
      in_keys:
        - trunk
        - {name: memory}
"""


def test_a_file_becomes_plain_data():
    document = load(write(POLICY))
    assert document.data == {
        "format": 1,
        "model": {
            "type": "graph",
            "components": {
                "trunk": {"type": "mlp", "hidden": [64, 32]},
                "policy": {"type": "action_head", "in_keys": ["trunk", {"name": "memory"}]},
            },
        },
    }


def test_the_place_of_a_scalar_or_a_list_is_that_of_the_value():
    places = load(write(POLICY)).places
    assert places[("format",)] == Place("policy.yaml", 1, 9)
    assert places[("model", "components", "trunk", "hidden")] == Place("policy.yaml", 5, 32)
    assert places[("model", "components", "trunk", "hidden", 1)] == Place("policy.yaml", 5, 37)
    assert places[("model", "components", "policy", "in_keys", 0)] == Place("policy.yaml", 9, 11)


def test_the_place_of_a_mapping_is_that_of_its_key():
    document = load(write(POLICY))
    assert document.places[()] == Place("policy.yaml", 1, 1)
    assert document.places[("model",)] == Place("policy.yaml", 2, 1)
    assert document.places[("model", "components", "trunk")] == Place("policy.yaml", 5, 5)
    assert document.places[("model", "components", "policy", "in_keys", 1)] == Place("policy.yaml", 10, 11)


def test_every_key_has_a_place():
    document = load(write(POLICY))
    assert document.key_places[("format",)] == Place("policy.yaml", 1, 1)
    assert document.key_places[("model", "components", "trunk", "hidden")] == Place("policy.yaml", 5, 24)
    assert ("model", "components", "policy", "in_keys", 0) not in document.key_places


def test_an_unknown_path_has_the_place_of_what_is_around_it():
    document = load(write(POLICY))
    assert document.place(("model", "components", "trunk", "depth")) == Place("policy.yaml", 5, 5)
    assert document.place(("format", "x", 0)) == Place("policy.yaml", 1, 9)
    assert document.place(("nothing",)) == Place("policy.yaml", 1, 1)


def test_a_problem_points_at_the_value_or_at_its_key():
    document = load(write(POLICY))
    path = ("model", "components", "trunk", "type")
    assert str(document.problem(path, "unknown")) == "policy.yaml:5:19  model.components.trunk.type: unknown"
    assert document.problem(path, "unknown", at_key=True).place == "policy.yaml:5:13"
    assert document.problem((*path[:-1], "gone"), "missing", at_key=True).place == "policy.yaml:5:5"


def test_places_in_text_and_in_overrides_read_as_people_write_them():
    assert str(Place("policy.yaml", 12, 20)) == "policy.yaml:12:20"
    document = load(write(POLICY), ["model.hidden=[1]"])
    assert str(document.place(("model", "hidden", 0))) == "override 'model.hidden=[1]'"


def test_paths_are_written_with_dots():
    assert dotted(("model", "components", "trunk", "hidden", 0)) == "model.components.trunk.hidden.0"
    assert dotted(()) == ""


def test_the_directory_is_that_of_the_file_or_the_current_one():
    assert load(write(POLICY, "deep/policy.yaml")).directory == Path.cwd() / "deep"
    assert load({}).directory == Path.cwd()


def test_places_name_the_file_as_it_was_given(tmp_path):
    write("a: 1", "deep/policy.yaml")
    assert str(load("deep/policy.yaml").place(("a",))) == "deep/policy.yaml:1:4"
    assert str(load(tmp_path / "deep/policy.yaml").place(("a",))) == f"{tmp_path}/deep/policy.yaml:1:4"


def test_every_problem_is_reported_at_once_in_the_order_of_the_text():
    write("seed: 1\nseed: 2", "base.yaml")
    file = write("""\
defaults: base.yaml
a: ${b.missing}
b: {1: x, c: 2, c: 3}
templates: {idle: {x: 1}}
d: {template: nowhere}
e: !!python/name:os.system ''
f: ${env:POLICYSMITH_UNSET}
""")
    found = problems(file, ["b.c.x=1", "nonsense"])
    assert [line.split("  ")[0] for line in found] == [
        "policy.yaml:2:4",
        "policy.yaml:3:5",
        "policy.yaml:3:17",
        "policy.yaml:4:13",
        "policy.yaml:5:15",
        "policy.yaml:6:4",
        "policy.yaml:7:4",
        "base.yaml:2:1",
        "override 'b.c.x=1'",
        "override 'nonsense'",
    ]


def test_a_missing_file_names_the_absolute_path_and_its_nearest_neighbour(tmp_path):
    write(POLICY)
    assert problems("polcy.yaml") == [f"{tmp_path}/polcy.yaml does not exist (did you mean 'policy.yaml'?)"]
    assert problems("no/policy.yaml") == [
        f"{tmp_path}/no/policy.yaml does not exist: there is no directory {tmp_path}/no"
    ]


def test_what_cannot_be_opened_is_a_problem(tmp_path):
    assert problems(tmp_path) == [f"cannot read {tmp_path}: it is a directory, not a regular file"]
    assert "null" in problems("a\0b")[0]
    assert "too long" in problems("x" * 5000)[0]


def test_yaml_text_in_the_place_of_a_path_is_a_problem():
    assert problems("a: 1\nb: 2\n") == ["a text is taken for the path of a file, found several lines: 'a: 1\\nb: 2\\n'"]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_is_a_problem(text):
    (found,) = problems(write(text))
    assert (
        found.startswith("policy.yaml:1:1  ") or found == "policy.yaml:2:1  the top level must be a mapping, found null"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [("[1]", "a list"), ("3", "a single value"), ("~", "null"), ("x", "a single value"), ("true", "true")],
)
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_the_top_level_must_be_a_mapping(text, found, suffix):
    if suffix == "json":
        text = {"~": "null", "x": '"x"'}.get(text, text)
    file = write(text, f"policy.{suffix}")
    assert problems(file) == [f"policy.{suffix}:1:1  the top level must be a mapping, found {found}"]


def test_a_file_that_is_not_utf8_is_a_problem_at_the_byte():
    Path("policy.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    assert problems("policy.yaml") == ["policy.yaml:2:7  not UTF-8: byte 0xe9; save the file as UTF-8"]


def test_a_byte_order_mark_is_no_content():
    Path("policy.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    document = load("policy.yaml")
    assert document.data == {"a": 1}
    assert document.key_places[("a",)] == Place("policy.yaml", 1, 1)


# Python mappings


def test_a_mapping_is_copied_and_never_changed():
    source = {"a": {"b": [1, {"c": 2}]}, "d": "${a.b}", "templates": {"t": {"x": 1}}, "e": {"template": "t"}}
    before = copy.deepcopy(source)
    document = load(source, ["a.b[0]=5", "~a.b[1].c"])
    document.data["a"]["b"].append(3)
    assert document.data["d"] == [5, {}]
    assert source == before


def test_tuples_become_lists_and_paths_become_strings():
    pair = namedtuple("pair", "x y")
    data = load({"a": (1, (2, 3)), "b": pair(1, 2), "c": pathlib.PurePosixPath("x/y")}).data
    assert data == {"a": [1, [2, 3]], "b": [1, 2], "c": "x/y"}
    assert type(data["b"]) is list


def test_problems_of_a_mapping_have_a_path_and_no_place():
    with pytest.raises(ConfigError) as caught:
        load({"a": {"b": [1, {2}]}})
    assert caught.value.problems == (Problem("a.b.1", "{2} is not plain data but of type set", None),)
    assert load({"a": 1}).places == {}
    assert load({"a": 1}).place(("a",)) is None


class Word(str):
    pass


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.float64(1.5), "numpy float64"),
        (np.int64(1), "numpy int64"),
        (np.bool_(True), "numpy bool"),
        (np.str_("x"), "numpy str_"),
        (np.zeros(2), "numpy ndarray"),
        (len, "of type builtin_function_or_method"),
        (math, "of type module"),
        (b"x", "of type bytes"),
        (1j, "of type complex"),
        (object(), "of type object"),
        (Word("x"), "of type Word"),
        (int, "of type type"),
    ],
)
def test_what_is_not_plain_data_is_refused_with_its_type(value, found):
    (message,) = problems({"a": value})
    assert message.startswith("a: ") and found in message


def test_keys_of_a_mapping_are_strings():
    assert problems({"a": {1: 2, None: 3}}) == [
        "a: key 1 is of type int; keys are strings",
        "a: key None is of type NoneType; keys are strings",
    ]


def test_a_mapping_that_contains_itself_is_a_problem():
    source: dict = {"a": {}}
    source["a"]["b"] = [source]
    assert problems(source) == ["a.b.0: contains itself"]


def test_a_mapping_may_share_parts():
    part = {"x": [1]}
    data = load({"a": part, "b": [part, part]}).data
    assert data == {"a": part, "b": [part, part]}
    assert data["a"] is not data["b"][0] is not data["b"][1]


def test_a_dict_config_is_taken_with_its_interpolations_unread():
    config = OmegaConf.create({"a": {"b": "${c}", "d": ["${.0}x", "???"]}, "c": 3, "e": "???"})
    config.a.d[0] = "${c}x"
    assert load(config).data == {"a": {"b": 3, "d": ["3x", "???"]}, "c": 3, "e": "???"}
    assert load({"part": config.a, "c": 4}).data["part"] == {"b": 4, "d": ["4x", "???"]}


def test_a_dict_config_obeys_our_rules():
    config = OmegaConf.create({"a": "${oc.env:HOME}"})
    assert "unknown resolver 'oc.env'" in problems(config)[0]
    assert problems(OmegaConf.create({1: 2})) == ["key 1 is of type int; keys are strings"]


@pytest.mark.parametrize("source", [3, None, [1], object()])
def test_a_source_is_a_file_or_a_mapping(source):
    (message,) = problems(source)
    assert message.startswith("a configuration is a file or a mapping, found ")


# Limits


def test_nesting_up_to_200_levels_is_read():
    text = "a: " + "[" * 198 + "1" + "]" * 198
    data = load(write(text)).data
    assert load(data).data == data
    write(text.replace("a:", '{"a":') + "}", "deep.json")
    assert load("deep.json").data == data
    assert load(write(text.replace("1", "'${b}'") + "\nb: 1")).data["a"] == data["a"]


@pytest.mark.parametrize("opening", ["[", "{a: "])
@pytest.mark.parametrize("levels", [201, 100_000])
def test_deeper_nesting_is_a_problem_at_its_place(opening, levels):
    (message,) = problems(write("a:\n " + opening * levels))
    assert message.startswith("policy.yaml:2:") and message.endswith("nested deeper than 200 levels")


def test_deeper_nesting_is_a_problem_in_json_and_in_mappings_too():
    (message,) = problems(write('{"a": ' + "[" * 100_000, "policy.json"))
    assert message == "policy.json:1:206  nested deeper than 200 levels"
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    assert problems({"a": deep}) == ["a: nested deeper than 200 levels"]


def test_aliases_may_not_add_up_to_deep_nesting():
    lines = ["a0: &a0 [1]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 1000))]
    assert problems(write("\n".join(lines))) == ["nested deeper than 200 levels"]


def test_templates_and_references_may_not_add_up_to_deep_nesting():
    chain = {f"t{i}": {"x": {"template": f"t{i - 1}"}} for i in range(1, 300)} | {"t0": {"y": 1}}
    assert "deep" in problems({"templates": chain, "a": {"template": "t299"}})[0]
    assert "deep" in problems({f"a{i}": {"x": "${a" + str(i + 1) + "}"} for i in range(300)} | {"a300": 1})[0]


def test_alias_bombs_fail_quickly():
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 100))]
    start = time.perf_counter()
    (message,) = problems(write("\n".join(lines)))
    assert message.startswith("more than 1,000,000 values")
    assert time.perf_counter() - start < 1


def test_merge_key_bombs_fail_quickly():
    big = "{" + ", ".join(f"k{i}: 1" for i in range(3000)) + "}"
    (message,) = problems(write(f"a: &a {big}\n" + "".join(f"b{i}: {{<<: *a}}\n" for i in range(2000))))
    assert "more than 1,000,000 values" in message


def test_template_and_reference_bombs_fail_quickly():
    uses = [{"template": f"t{i}"} for i in range(60)]
    templates = {"t0": {"z": 1}} | {f"t{i}": {"x": uses[i - 1], "y": uses[i - 1]} for i in range(1, 60)}
    references = {"r0": 1} | {f"r{i}": [f"${{r{i - 1}}}"] * 2 for i in range(1, 60)}
    texts = {"s0": "x" * 100} | {f"s{i}": f"${{s{i - 1}}}" * 100 for i in range(1, 10)}
    start = time.perf_counter()
    assert "more than 1,000,000 values" in problems({"templates": templates, "a": {"template": "t59"}})[0]
    assert "more than 1,000,000 values" in problems(references)[0]
    assert "references insert more than 10,000,000 characters" in problems(texts)[0]
    assert time.perf_counter() - start < 10


def test_loading_imports_neither_torch_nor_omegaconf_without_need():
    write("a: 1\nb: ${a}\n")
    code = (
        "import sys, policysmith.config.load as l; l.load('policy.yaml'); "
        "print([m for m in ('torch', 'omegaconf') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert result.stdout.strip() == "[]", result.stderr


def test_documents_of_two_loads_share_nothing():
    file = write("a: &a {x: [1]}\nb: *a\n")
    first, second = load(file), load(file)
    assert isinstance(first, Document)
    first.data["a"]["x"].append(2)
    assert first.data["b"] == second.data["a"] == {"x": [1]}


def test_overrides_are_a_list():
    assert problems({}, "a=1") == ["overrides are a list of texts, found the text 'a=1'; write ['a=1']"]
