"""Composition in schema version 1: `defaults`, `_merge_`, `_template_`, `${}`, and how a file is told from ours."""

import os
import subprocess
import sys

import pytest

from policysmith.config.load import read_source
from policysmith.config.located_data import Findings
from policysmith.dialects.policy_constructor.composition import finish_v1, is_v1
from policysmith.errors import ConfigError


def composed(source):
    findings = Findings()
    return finish_v1(read_source(source, findings), findings)


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


BASE = """\
params:
  a: {b: 1, c: [1, 2]}
  list: [{n: p, v: {x: 1, y: 2}}, {n: q, v: 3}]
"""


def merged(write, text):
    write("base.yaml", BASE)
    return composed(write("main.yaml", f"defaults: [base.yaml]\n{text}")).data["params"]


def test_mappings_merge_deeply_and_lists_are_replaced(write):
    found = merged(write, "params: {a: {c: [3], d: 4}, list: null}")
    assert found == {"a": {"b": 1, "c": [3], "d": 4}, "list": None}
    assert list(found["a"]) == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("directive", "expected"),
    [
        ("{_merge_: append, _value_: [3]}", [1, 2, 3]),
        ("{_merge_: prepend, _value_: [3]}", [3, 1, 2]),
        ("{_merge_: replace, _value_: [3]}", [3]),
        ("{_merge_: replace, _value_: {z: 1}}", {"z": 1}),
    ],
)
def test_a_directive_says_how_a_list_is_laid_on_the_one_below(write, directive, expected):
    assert merged(write, f"params: {{a: {{c: {directive}}}}}")["a"]["c"] == expected


def test_a_mapping_can_be_replaced_whole(write):
    assert merged(write, "params: {a: {_merge_: replace, _value_: {z: 1}}}")["a"] == {"z": 1}


def test_keyed_merges_entries_in_place_and_appends_new_ones(write):
    found = merged(write, "params: {list: {_merge_: keyed, key: n, _value_: [{n: r}, {n: p, v: {y: 5}}]}}")["list"]
    assert found == [{"n": "p", "v": {"x": 1, "y": 5}}, {"n": "q", "v": 3}, {"n": "r"}]


def test_a_directive_with_nothing_below_it_gives_its_value(write):
    found = merged(write, "params: {new: {_merge_: append, _value_: [{_merge_: prepend, _value_: [1]}]}}")
    assert found["new"] == [[1]]


def test_a_null_below_is_an_empty_list(write):
    write("base.yaml", "params: {a: null}")
    found = composed(write("main.yaml", "defaults: [base.yaml]\nparams: {a: {_merge_: append, _value_: [1]}}"))
    assert found.data["params"]["a"] == [1]


def test_a_directive_in_a_base_is_done_before_what_is_laid_on_it(write):
    write("one.yaml", "params: {a: [1]}")
    write("two.yaml", "defaults: [one.yaml]\nparams: {a: {_merge_: append, _value_: [2]}}")
    found = composed(write("main.yaml", "defaults: [two.yaml]\nparams: {a: {_merge_: append, _value_: [3]}}"))
    assert found.data["params"]["a"] == [1, 2, 3]


def test_defaults_are_relative_to_their_file_and_later_ones_win(write):
    write("sub/one.yaml", "defaults: [two.yaml]\nparams: {a: 1, b: 1}")
    write("sub/two.yaml", "params: {a: 2, c: 2}")
    write("three.yaml", "params: {b: 3}")
    found = composed(write("main.yaml", "defaults: [sub/one.yaml, three.yaml]\nparams: {d: 4}"))
    assert found.data["params"] == {"a": 1, "c": 2, "b": 3, "d": 4}


def test_templates_are_laid_under_what_uses_them_and_are_gone_after(write):
    text = """\
    templates:
      one: {x: 1, deep: {y: 2, z: 3}, list: [1]}
      two: {_template_: one, x: 2}
    params:
      a: {_template_: two, deep: {z: 4}, list: {_merge_: append, _value_: [2]}}
    """
    found = composed(write("main.yaml", text)).data
    assert found == {"params": {"a": {"x": 2, "deep": {"y": 2, "z": 4}, "list": [1, 2]}}}


def test_references_keep_their_type_alone_and_are_text_inside_one(write, monkeypatch):
    monkeypatch.setenv("PS_INT", " 7 ")
    text = """\
    params:
      list: [1, {deep: 2.5}]
      a: ${params.list[1].deep}
      b: "x${params.a}y"
      c: ${params.list}
      d: ${env:PS_INT}
      e: ${env:int:PS_INT}
      f: ${env:bool:PS_NONE,true}
      g: "$x and $$x"
      h: ${env:json:PS_NONE,[1, 2]}
    """
    monkeypatch.delenv("PS_NONE", raising=False)
    found = composed(write("main.yaml", text)).data["params"]
    assert found["a"] == 2.5 and found["b"] == "x2.5y" and found["c"] == [1, {"deep": 2.5}]
    assert found["d"] == " 7 " and found["e"] == 7 and found["f"] is True
    assert found["g"] == "$x and $$x" and found["h"] == [1, 2]


def test_places_are_those_of_the_text(write):
    document = composed(write("main.yaml", "templates: {t: {a: 1}}\nparams:\n  x: {_template_: t, b: 2}\n"))
    assert str(document.place(("params", "x", "a"))).endswith("main.yaml:1:20")
    assert str(document.place(("params", "x", "b"))).endswith("main.yaml:3:25")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("schema_version: 1", True),
        ("schema_version: 7", True),
        ("model: {sequential: {}}", True),
        ("model: {graph: 3}", True),
        ("model: {type: graph}", False),
        ("format: 1\nmodel: {}", False),
        ("components: {}", False),
        ("inputs: {x: [4]}", False),
        ("defaults: [theirs.yaml]", True),
        ("defaults: [ours.yaml]", False),
        ("defaults: [loop.yaml]", False),
        ("defaults: [nothing.yaml]", False),
    ],
)
def test_which_grammar_a_file_is_of(write, text, expected):
    write("theirs.yaml", "schema_version: 1")
    write("ours.yaml", "components: {}")
    write("loop.yaml", "defaults: [loop.yaml]")
    assert is_v1(read_source(write("main.yaml", text), Findings())) is expected


def test_all_mistakes_come_at_once(write):
    text = "params:\n  a: {_merge_: nothing, _value_: 1}\n  b: {_template_: nothing}\n  c: ${params.nothing}\n"
    with pytest.raises(ConfigError) as caught:
        composed(write("main.yaml", text))
    assert [problem.path for problem in caught.value.problems] == [
        "params.a._merge_",
        "params.b._template_",
        "params.c",
    ]


SCRIPT = """
import sys
from policysmith.config.load import read_source
from policysmith.config.located_data import Findings
from policysmith.dialects.policy_constructor.composition import finish_v1

print(list(finish_v1(read_source(sys.argv[1], Findings()), Findings()).data["params"]))
"""


def test_the_order_of_keys_after_a_merge_depends_on_no_hash_seed(write):
    write("base.yaml", "params: {c: 1, a: 1, b: 1}")
    main = write("main.yaml", "defaults: [base.yaml]\nparams: {z: 1, b: 2, y: 1}")
    found = []
    for seed in ("1", "2"):
        run = [sys.executable, "-c", SCRIPT, str(main)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        found.append(subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout.strip())
    assert found == ["['c', 'a', 'b', 'z', 'y']"] * 2
