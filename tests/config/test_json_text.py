"""JSON is read as the standard says, with a place for every value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policysmith.config.load import Place, load
from policysmith.errors import ConfigError


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def document(text: str):
    Path("policy.json").write_text(text, encoding="utf-8")
    return load("policy.json")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        document(text)
    return [str(problem) for problem in caught.value.problems]


def test_tabs_and_all_that_json_allows_are_read():
    text = (
        '{\t"a":\t[1,\t-2.5e3, true ,null],\r\n\t"b\\u00e9\\/": {"": "\\ud83d\\ude00\x7f"}, "'
        + "k" * 2000
        + '"\n:{}}\n'
    )
    assert document(text).data == {"a": [1, -2500.0, True, None], "bé/": {"": "😀\x7f"}, "k" * 2000: {}}


def test_every_value_and_key_has_a_place():
    found = document('{"a": [1,\n\t{"b": 2}],\n "c": {"d": []}}')
    assert found.places[("a",)] == Place("policy.json", 1, 7)
    assert found.places[("a", 1, "b")] == Place("policy.json", 2, 8)
    assert found.places[("c",)] == found.key_places[("c",)] == Place("policy.json", 3, 2)


def test_duplicate_keys_are_problems():
    assert problems('{"a": 1,\n "a": 2}') == ["policy.json:2:2  a: duplicate key 'a' (first at policy.json:1:2)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1  is empty; a mapping is needed"),
        ('{"a": 1', "1:8  not valid JSON: expected ',' or '}'"),
        ('{"a" 1}', "1:6  not valid JSON: expected ':'"),
        ('{"a": }', "1:7  not valid JSON: expecting value"),
        ("{a: 1}", "1:2  not valid JSON: expected a key in double quotes"),
        ('{"a": 1,}', "1:9  not valid JSON: expected a key in double quotes"),
        ('{"a": [1 2]}', "1:10  not valid JSON: expected ',' or ']'"),
        ('{"a": [1,]}', "1:10  not valid JSON: expecting value"),
        ('{"a": 1}\n}', "2:1  not valid JSON: expected the end of the file"),
        ('{"a": "x\ty"}', "1:9  not valid JSON: invalid control character at"),
        ('{"a": 01}', "1:8  not valid JSON: expected ',' or '}'"),
        ("{'a': 1}", "1:2  not valid JSON: expected a key in double quotes"),
        ('{"a": ' + "1" * 5000 + "}", "1:7  not valid JSON: a number with too many digits"),
    ],
)
def test_text_that_is_no_json_is_one_problem_at_its_place(text, message):
    assert problems(text) == [f"policy.json:{message}"]


texts = st.text(st.characters(codec="utf-8")).filter(lambda text: "${" not in text and "template" not in text)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(texts.filter(lambda key: key != "defaults"), plain), st.booleans(), st.none() | st.just("\t"))
def test_data_survives_a_round_trip_through_json(value, ascii_only, indent):
    assert document(json.dumps(value, ensure_ascii=ascii_only, indent=indent)).data == value


@given(st.dictionaries(texts.filter(lambda key: key != "defaults"), plain))
def test_a_mapping_and_its_json_load_alike(value):
    assert load(value).data == document(json.dumps(value)).data
