"""`defaults`: files lie under the file that names them, in order, and a mistake is told where it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from policysmith.config.load import Place, load
from policysmith.errors import ConfigError


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


def problems(source="main.yaml", overrides=()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(source, overrides)
    return [str(problem) for problem in caught.value.problems]


def test_later_files_win_and_the_file_itself_wins_over_all():
    write("one.yaml", "a: {x: 1, y: 1, z: 1}\nb: [1, 2, 3]\nc: {d: 1}\n")
    write("two.yaml", "a: {x: 2, y: 2}\nb: [4]\n")
    write("main.yaml", "defaults: [one.yaml, two.yaml]\na: {x: 3}\nc: 5\n")
    document = load("main.yaml")
    assert document.data == {"a": {"x": 3, "y": 2, "z": 1}, "b": [4], "c": 5}
    assert str(document.place(("a", "y"))) == "two.yaml:1:14"
    assert str(document.place(("a",))) == "main.yaml:2:1"
    assert document.key_places[("a", "z")] == Place("one.yaml", 1, 17)


def test_one_file_needs_no_list():
    write("one.yaml", "a: 1")
    write("main.yaml", "defaults: one.yaml\nb: 2")
    assert load("main.yaml").data == {"a": 1, "b": 2}
    assert load({"defaults": "one.yaml", "b": 2}).data == {"a": 1, "b": 2}
    assert load({"defaults": [], "b": 2}).data == {"b": 2}


def test_each_file_is_relative_to_the_one_that_names_it():
    write("shared/nets/small.json", '{"hidden": [8]}')
    write("shared/base.yaml", "defaults: nets/small.json\nseed: 1")
    write("runs/main.yaml", "defaults: [../shared/base.yaml]\n")
    document = load("runs/main.yaml")
    assert document.data == {"hidden": [8], "seed": 1}
    assert str(document.place(("hidden",))) == "runs/../shared/nets/small.json:1:12"
    assert document.directory == Path.cwd() / "runs"


def test_a_mapping_names_files_relative_to_the_current_directory():
    write("shared/base.yaml", "a: {x: 1}")
    assert load({"defaults": ["shared/base.yaml"], "a": {"y": 2}}).data == {"a": {"x": 1, "y": 2}}


def test_a_file_may_be_named_twice():
    write("base.yaml", "a: 1\nb: 1")
    write("one.yaml", "defaults: base.yaml\na: 2")
    write("two.yaml", "defaults: base.yaml\nb: 2")
    write("main.yaml", "defaults: [one.yaml, two.yaml]")
    assert load("main.yaml").data == {"a": 1, "b": 2}


def test_many_ways_to_one_file_are_walked_once():
    write("f0.yaml", "a: 1")
    for i in range(1, 40):
        write(f"f{i}.yaml", f"defaults: [f{i - 1}.yaml, f{i - 1}.yaml]")
    assert load("f39.yaml").data == {"a": 1}


def test_cycles_show_their_chain():
    write("main.yaml", "defaults: [a.yaml]")
    write("a.yaml", "defaults:\n  - sub/../b.yaml")
    write("b.yaml", "defaults: a.yaml")
    Path("sub").mkdir()
    assert problems() == ["sub/../b.yaml:1:11  defaults: defaults form a cycle: a.yaml → sub/../b.yaml → a.yaml"]
    write("self.yaml", "defaults: [self.yaml]")
    assert problems("self.yaml") == ["self.yaml:1:12  defaults.0: defaults form a cycle: self.yaml → self.yaml"]


def test_a_missing_file_is_a_problem_at_its_entry(tmp_path):
    write("base.yaml", "a: 1")
    write("main.yaml", "defaults: [base.yaml, bse.yaml, no/x.yaml]")
    assert problems() == [
        f"main.yaml:1:23  defaults.1: {tmp_path}/bse.yaml does not exist (did you mean 'base.yaml'?)",
        f"main.yaml:1:33  defaults.2: {tmp_path}/no/x.yaml does not exist: there is no directory {tmp_path}/no",
    ]


def test_what_only_follows_from_a_missing_file_is_not_reported():
    write("main.yaml", "defaults: [gone.yaml]\na: {template: t}\nb: ${c}\nd: 1\nd: 2")
    assert len(problems(overrides=["nonsense"])) == 3


def test_entries_are_file_names():
    write("main.yaml", "defaults: [1, {a: b}, null, [x]]")
    assert [line.split(": ", 1)[0] for line in problems()] == [
        f"main.yaml:1:{c}  defaults.{i}" for i, c in enumerate([12, 15, 23, 29])
    ]
    assert problems({"defaults": None}) == ["defaults: defaults takes a file name or a list of file names, found null"]
    assert "null" in problems({"defaults": "a\0b"})[0]


def test_problems_inside_a_default_have_its_place():
    write("base.yaml", "a: 1\na: 2\nb: [")
    write("list.yaml", "[1]")
    write("empty.yaml", "")
    write("main.yaml", "defaults: [base.yaml, list.yaml, empty.yaml]")
    found = problems()
    assert [line.split("  ")[0] for line in found] == ["base.yaml:3:5", "list.yaml:1:1", "empty.yaml:1:1"]


def test_defaults_deeper_down_are_ordinary_keys():
    assert load({"a": {"defaults": ["x"]}}).data == {"a": {"defaults": ["x"]}}


def test_templates_merge_across_files():
    write("base.yaml", "templates: {t: {x: 1, y: 1}, idle: {z: 1}}")
    write("main.yaml", "defaults: base.yaml\ntemplates: {t: {y: 2}}\na: {template: t}")
    assert load("main.yaml").data == {"a": {"x": 1, "y": 2}}
