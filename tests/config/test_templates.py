"""`templates`: what is said once lies under every mapping that asks for it, and the mapping itself wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from policysmith.config.load import Place, load
from policysmith.errors import ConfigError


def problems(source, overrides=()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(source, overrides)
    return [str(problem) for problem in caught.value.problems]


BLOCK = {"type": "transformer", "attention": {"type": "mha", "heads": 4}, "hidden": [64, 64]}


def test_the_mapping_wins_over_its_template():
    source = {"templates": {"block": BLOCK}, "a": {"template": "block", "attention": {"heads": 8}, "hidden": [1]}}
    assert load(source).data == {
        "a": {"type": "transformer", "attention": {"type": "mha", "heads": 8}, "hidden": [1]},
    }


def test_a_template_serves_mappings_everywhere():
    source = {"templates": {"t": {"x": 1}}, "template": "t", "a": [{"template": "t", "y": [{"template": "t"}]}]}
    assert load(source).data == {"x": 1, "a": [{"x": 1, "y": [{"x": 1}]}]}


def test_templates_use_templates():
    source = {
        "templates": {"a": {"template": "b", "x": 1}, "b": {"x": 2, "y": {"template": "c"}}, "c": {"z": 3, "w": 3}},
        "node": {"template": "a", "y": {"w": 4}},
    }
    assert load(source).data == {"node": {"x": 1, "y": {"z": 3, "w": 4}}}


def test_keys_of_the_template_come_first():
    source = {"templates": {"t": {"x": 1, "y": 1}}, "a": {"z": 2, "template": "t", "x": 2}}
    assert list(load(source).data["a"]) == ["x", "y", "z"]


def test_uses_of_a_template_share_nothing():
    data = load({"templates": {"t": {"x": [1]}}, "a": {"template": "t"}, "b": {"template": "t"}}).data
    data["a"]["x"].append(2)
    assert data["b"] == {"x": [1]}


def test_references_in_a_template_are_read_where_it_is_used():
    source = {"templates": {"t": {"x": "${.y}", "z": "${top}"}}, "a": {"template": "t", "y": 1}, "top": 2}
    assert load(source).data["a"] == {"x": 1, "z": 2, "y": 1}


def test_places_tell_template_and_use_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text("templates:\n  t: {x: 1, y: {z: 2}}\na:\n  template: t\n  w: 1\n")
    document = load("policy.yaml")
    assert document.places[("a", "x")] == Place("policy.yaml", 2, 10)
    assert document.places[("a", "y")] == Place("policy.yaml", 2, 13)
    assert document.places[("a",)] == Place("policy.yaml", 3, 1)
    assert document.key_places[("a", "w")] == Place("policy.yaml", 5, 3)
    assert set(document.places) == {(), ("a",), ("a", "x"), ("a", "y"), ("a", "y", "z"), ("a", "w")}
    assert set(document.key_places) == set(document.places) - {()}


def test_an_unknown_name_is_a_problem_with_the_nearest_one():
    assert problems({"templates": {"block": {}}, "a": {"template": "blok"}, "b": {"template": "block"}}) == [
        "a.template: unknown template 'blok' (did you mean 'block'?)"
    ]
    assert problems({"a": {"template": "x"}}) == ["a.template: unknown template 'x'; defined: none"]
    assert problems({"a": {"template": 3}}) == ["a.template: template takes the name of a template, found 3"]


def test_cycles_show_their_chain():
    source = {"templates": {"a": {"x": {"template": "b"}}, "b": {"template": "c"}, "c": {"template": "b"}}}
    assert problems(source | {"node": {"template": "a"}}) == ["templates.c.template: templates form a cycle: b → c → b"]


def test_templates_are_mappings():
    assert problems({"templates": {"t": [1]}, "a": {"template": "t"}}) == [
        "templates.t: a template must be a mapping, found a list"
    ]
    assert problems({"templates": 3}) == ["templates: templates takes a mapping from names to mappings, found 3"]
    assert load({"templates": {}, "a": 1}).data == {"a": 1}


def test_an_unused_template_of_the_main_file_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("templates: {spare: {x: 1}}")
    Path("policy.yaml").write_text(
        "defaults: base.yaml\ntemplates:\n  a: {x: 1}\n  b: {template: a}\n  c: {template: zz}\n"
    )
    assert problems("policy.yaml") == [
        "policy.yaml:3:3  templates.a: unused template 'a'",
        "policy.yaml:4:3  templates.b: unused template 'b'",
        "policy.yaml:5:3  templates.c: unused template 'c'",
        "policy.yaml:5:17  templates.c.template: unknown template 'zz'; defined: 'spare', 'a', 'b', 'c'",
    ]


def test_without_templates_nothing_is_touched():
    data = {"a": {"templates": [1]}, "b": ["template"]}
    assert load(data).data == data
