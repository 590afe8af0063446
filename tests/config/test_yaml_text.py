"""YAML means what YAML 1.2's core schema says, constructs nothing, and hides no mistake."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from policysmith.config import yaml_text
from policysmith.config.load import Place, load
from policysmith.errors import ConfigError


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def data(text: str):
    Path("policy.yaml").write_text(text, encoding="utf-8")
    return load("policy.yaml").data


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        data(text)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("tRUE", "tRUE"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("", None),
        ("none", "none"),
        ("0", 0),
        ("-7", -7),
        ("+7", 7),
        ("007", 7),
        ("100_000", 100_000),
        ("1__0", "1__0"),
        ("1_", "1_"),
        ("_1", "_1"),
        ("0xFF", 255),
        ("0xff_ff", 65535),
        ("0o17", 15),
        ("0b11", "0b11"),
        ("0x", "0x"),
        ("0o8", "0o8"),
        ("3e-4", 3e-4),
        ("1e3", 1000.0),
        ("1E+3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1_000.5", 1000.5),
        ("1.5e-3", 1.5e-3),
        (".inf", math.inf),
        ("+.INF", math.inf),
        ("-.inf", -math.inf),
        (".", "."),
        ("-", [None]),
        ("+", "+"),
        ("e3", "e3"),
        ("1e", "1e"),
        ("1.2.3", "1.2.3"),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("inf", "inf"),
        ("nan", "nan"),
        ("\u0661\u0662", "\u0661\u0662"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("!!int '12'", 12),
        ("!!float 1", 1.0),
        ("!!float 0x10", 16.0),
        ("!!bool 'true'", True),
        ("!!null ''", None),
        ("!!map {b: 1}", {"b": 1}),
        ("!!seq [1]", [1]),
        ("???", "???"),
        ("=", "="),
    ],
)
def test_scalars_mean_what_the_core_schema_says(text, value):
    found = data(f"a:\n  {text}\n")["a"]
    assert found == value and type(found) is type(value)


def test_nan_is_a_number():
    assert math.isnan(data("a: .nan")["a"])


def test_block_scalars_are_text():
    assert data("a: |\n  1\nb: >\n  x\n  y\n") == {"a": "1\n", "b": "x y\n"}


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system",
        "!!python/name:os.system",
        "!mine",
        "!!set",
        "!!binary",
        "!!timestamp",
        "!!omap",
    ],
)
@pytest.mark.parametrize("value", ["x", "[x]", "{x: 1}"])
def test_other_tags_are_problems(tag, value):
    assert problems(f"a: {tag} {value}") == [
        f"policy.yaml:1:4  a: tag {tag} is not allowed; a configuration is plain data"
    ]


@pytest.mark.parametrize("tag", ["plain", "container", "text"])
def test_no_tag_passes_for_our_own_marks(tag):
    assert problems(f"a: !<{tag}> 1") == [
        f"policy.yaml:1:4  a: tag {tag} is not allowed; a configuration is plain data"
    ]


def test_a_tag_must_fit_its_value():
    assert problems("a: !!int x\nb: !!int 1.5\nc: !!bool 1") == [
        "policy.yaml:1:4  a: 'x' is no !!int",
        "policy.yaml:2:4  b: '1.5' is no !!int",
        "policy.yaml:3:4  c: '1' is no !!bool",
    ]


def test_numbers_that_python_refuses_to_read_are_problems():
    (message,) = problems("a: " + "1" * 5000)
    assert message.startswith("policy.yaml:1:4  a: '111") and message.endswith("has too many digits")


def test_duplicate_keys_are_problems_with_both_places():
    assert problems("a: 1\nb: {c: 1,\n  c: 2}\na: 3\na: 4") == [
        "policy.yaml:3:3  b.c: duplicate key 'c' (first at policy.yaml:2:5)",
        "policy.yaml:4:1  a: duplicate key 'a' (first at policy.yaml:1:1)",
        "policy.yaml:5:1  a: duplicate key 'a' (first at policy.yaml:4:1)",
    ]


def test_keys_that_are_not_strings_are_problems():
    assert problems("1: a\ntrue: b\n~: c\n3e-4: d\n? [x]\n: e\n") == [
        "policy.yaml:1:1  key 1 is not a string; write it in quotes",
        "policy.yaml:2:1  key true is not a string; write it in quotes",
        "policy.yaml:3:1  key ~ is not a string; write it in quotes",
        "policy.yaml:4:1  key 3e-4 is not a string; write it in quotes",
        "policy.yaml:5:3  a key must be a string; it is a list or a mapping here",
    ]


def test_words_that_older_yaml_took_for_booleans_are_keys():
    assert data("no: 1\ny: 2\non: 3\n'1': 4\n") == {"no": 1, "y": 2, "on": 3, "1": 4}


def test_aliases_repeat_what_their_anchor_names():
    assert data("a: &a [1, {b: 2}]\nc: *a\nd: &d x\ne: *d") == {
        "a": [1, {"b": 2}],
        "c": [1, {"b": 2}],
        "d": "x",
        "e": "x",
    }


def test_an_alias_has_the_place_of_its_anchor():
    Path("policy.yaml").write_text("a: &a [1,\n  2]\nc: *a\n")
    assert load("policy.yaml").places[("c", 1)] == Place("policy.yaml", 2, 3)


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: {c: *a}}", "a: &a {<<: *a}", "&a a: *a\nb: &b [[*b]]"])
def test_recursive_aliases_are_problems(text):
    assert any("refers to what contains it" in message for message in problems(text)) or text.startswith("&a")


def test_merge_keys_lay_a_mapping_under_another():
    text = (
        "a: &a {x: 1, y: {z: 1}}\nb: &b {x: 2, w: 3}\nc: {<<: *a, y: {v: 1}}\nd: {<<: [*a, *b], w: 4}\ne: {'<<': 1}\n"
    )
    found = data(text)
    assert found["c"] == {"x": 1, "y": {"v": 1}}
    assert found["d"] == {"x": 1, "y": {"z": 1}, "w": 4}
    assert found["e"] == {"<<": 1}


def test_merge_keys_take_mappings_only():
    assert problems("a: {<<: 1}\nb: {<<: [{x: 1}, 2]}") == [
        "policy.yaml:1:9  a: << takes a mapping or a list of mappings",
        "policy.yaml:2:9  b: << takes a mapping or a list of mappings",
    ]


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("a: [1, 2\nb: 3\n", "policy.yaml:2:2", "did not find expected ',' or ']'"),
        ("a: 1\n b: 2\n", "policy.yaml:2:3", "mapping values are not allowed"),
        ("a:\n\t- 1\n", "policy.yaml:2:1", "indented with spaces, not with tabs"),
        ("a: [${b}]\n", "policy.yaml:1:6", "write references in quotes, '${...}'"),
        ("a: 1\nb: \x07\n", "policy.yaml:2:4", "control characters are not allowed"),
        ("a: *nowhere\n", "policy.yaml:1:4", "undefined alias"),
        ("a: 1\n---\nb: 2\n", "policy.yaml:2:1", "expected a single document"),
        ("a: 'open", "policy.yaml:1:9", "unexpected end of stream"),
        ("a: !x!y 1", "policy.yaml:1:4", "undefined tag handle"),
        ("%YAML 9.9\n---\na: 1", "policy.yaml:1:1", "incompatible YAML document"),
    ],
)
def test_text_that_is_no_yaml_is_one_problem_at_its_place(text, place, reason):
    (message,) = problems(text)
    assert message.startswith(f"{place}  not valid YAML: ") and reason in message


def test_without_libyaml_the_same_rules_hold(monkeypatch):
    monkeypatch.setattr(yaml_text, "_Loader", yaml_text._PythonLoader)
    assert data("a: [no, 3e-4, '1', !!str 2]\nb: &b {c: 1}\nd: {<<: *b}\n") == {
        "a": ["no", 3e-4, "1", "2"],
        "b": {"c": 1},
        "d": {"c": 1},
    }
    assert problems("a: " + "[" * 100_000)[0].endswith("nested deeper than 200 levels")
    assert problems("a: \x07")[0].startswith("policy.yaml:1:4  not valid YAML: ")
    assert problems("a: [")[0].startswith("policy.yaml:1:5  not valid YAML: ")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
@pytest.mark.parametrize("levels", [201, 1_001])
def test_nesting_is_too_deep_at_one_place_with_libyaml_and_without(opening, levels, monkeypatch):
    text = "a:\n " + opening * levels
    found = problems(text)
    assert found[0].startswith("policy.yaml:2:") and found[0].endswith("  nested deeper than 200 levels")
    monkeypatch.setattr(yaml_text, "_Loader", yaml_text._PythonLoader)
    assert problems(text) == found


@pytest.mark.parametrize(
    "sentence",
    ["exceeded maximum nesting depth", "Maximum nesting level reached, set with yaml_set_max_nest_level())"],
)
def test_a_libyaml_that_limits_nesting_itself_does_not_change_the_sentence(sentence, monkeypatch):
    class Limited(yaml_text._PythonLoader):
        def get_single_node(self):
            raise yaml.scanner.ScannerError("while increasing flow level", self.get_mark(), sentence, self.get_mark())

    monkeypatch.setattr(yaml_text, "_Loader", Limited)
    assert problems("a: " + "[" * 1_001) == ["policy.yaml:1:202  nested deeper than 200 levels"]
    assert problems("a: ]" + "[" * 1_001)[0].startswith("policy.yaml:1:4  not valid YAML: ")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
).filter(lambda value: "${" not in repr(value))
RESERVED = ("defaults", "templates", "template")


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), plain, max_size=4), st.booleans())
def test_data_survives_a_round_trip_through_yaml(value, flow):
    if any(word in repr(value) for word in RESERVED):
        return
    assert data(yaml.dump(value, Dumper=CoreDumper, default_flow_style=flow, allow_unicode=True)) == value


class CoreDumper(yaml.SafeDumper):
    """Quotes every string, since PyYAML's own notion of what needs quotes is that of YAML 1.1."""


CoreDumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@given(st.lists(st.sampled_from(["a: 1", "b: [1, 2]", "c: {d: 1}", "", "# note", "e:\n  f: 1"]), max_size=8))
def test_places_point_at_the_line_of_the_key(lines):
    numbered = [f"k{i}_{line}" if line and line[0] != "#" else line for i, line in enumerate(lines)]
    text = "first: 0\n" + "\n".join(numbered)
    Path("policy.yaml").write_text(text)
    document = load("policy.yaml")
    for path, place in document.key_places.items():
        assert text.splitlines()[place.line - 1][place.column - 1 :].startswith(f"{path[-1]}:")
