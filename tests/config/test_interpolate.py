"""`${}`: references and environment variables, and nothing else, become the values they name."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from policysmith.config.load import Place, load
from policysmith.errors import ConfigError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("SMITH", "12")
    monkeypatch.setenv("WORD", "a ${b} word")
    monkeypatch.delenv("UNSET", raising=False)


def resolved(value, **rest):
    return load({"value": value, **rest}).data["value"]


def problems(value, **rest) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load({"value": value, **rest})
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("target", [1, 1.5, True, None, "x", "", [1, {"a": 2}], {"a": [1]}, {}])
def test_a_string_that_is_one_reference_takes_the_value_with_its_type(target):
    for text in ("${a}", "${ a }", "${b.c}", "${b.d[0]}", "${b.d.0}", "${b[d][0]}"):
        found = resolved(text, a=target, b={"c": target, "d": [target]})
        assert found == target and type(found) is type(target)


def test_references_inside_a_string_are_written_out():
    assert resolved("x-${a}-${b}${c}", a=1, b=3e-4, c="y") == "x-1-0.0003y"
    assert resolved("${a} ${b}", a=True, b=None) == "True None"


def test_references_may_be_relative():
    source = {"a": {"b": {"c": "${.d}", "d": 1, "e": "${..f}", "g": ["${.1}", 5]}, "f": 2, "h": "${..top}"}, "top": 3}
    data = load(source).data["a"]
    assert data == {"b": {"c": 1, "d": 1, "e": 2, "g": [5, 5]}, "f": 2, "h": 3}


def test_references_lead_through_references():
    source = {"a": "${b}", "b": "${c.d}", "c": {"d": {"e": "${f}"}}, "f": 7, "g": "${a.e}", "h": "${c.d.e}!"}
    assert load(source).data == {"a": {"e": 7}, "b": {"e": 7}, "c": {"d": {"e": 7}}, "f": 7, "g": 7, "h": "7!"}


def test_references_may_build_keys():
    assert resolved("${sizes.${kind}}", sizes={"big": 512}, kind="big") == 512
    assert resolved("${list[${i}]}", list=[5, 6], i="1") == 6


def test_a_referenced_container_is_a_copy():
    data = load({"a": {"x": [1]}, "b": "${a}", "c": "${a}"}).data
    data["b"]["x"].append(2)
    assert data["a"] == data["c"] == {"x": [1]}


def test_an_escaped_reference_is_text():
    assert resolved(r"\${a}") == "${a}"
    assert resolved(r"x \${a} ${b}", b=1) == "x ${a} 1"
    assert resolved("${other}", other=r"\${a}") == "${a}"
    assert load({"a": r"\${x}", "b": "${a}", "c": {"d": "${a}"}, "e": "${c}"}).data["e"] == {"d": "${x}"}


@pytest.mark.parametrize("text", ["???", "a.b", "$a", "$ {a}", "{a}", "}", "\\", r"a\\b", r"\$", "oc.env:HOME", "$"])
def test_strings_without_a_reference_pass_untouched(text):
    assert resolved(text) == text
    assert load({"value": text, "other": "${value}", text: "${value}"}).data == {
        "value": text,
        "other": text,
        text: text,
    }


def test_keys_are_never_interpolated():
    assert load({"${a}": 1, "a": 2}).data == {"${a}": 1, "a": 2}


def test_places_stay_those_of_the_string(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text("a: {x: 1}\nb: ${a}\nc: ${a.x}\nd: [1]\ne: ${d}\nf: ${nope}\n")
    with pytest.raises(ConfigError, match=r"^policy.yaml:6:4  f: '\${nope}': there is no 'nope' in the top level$"):
        load("policy.yaml")
    places = load("policy.yaml", ["f=1"]).places
    assert places[("b",)] == Place("policy.yaml", 2, 1)
    assert places[("b", "x")] == Place("policy.yaml", 1, 8)
    assert places[("c",)] == Place("policy.yaml", 3, 4)
    assert places[("e",)] == Place("policy.yaml", 5, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${modl}", "there is no 'modl' in the top level (did you mean 'model'?)"),
        ("${model.typ}", "there is no 'typ' in model (did you mean 'type'?)"),
        ("${model.type.x}", "model.type has nothing below it"),
        ("${model.sizes[2]}", "model.sizes is a list of 1 and has no index 2"),
        ("${model.sizes.x}", "model.sizes is a list of 1 and has no index x"),
        ("${...x}", "more leading dots than levels above"),
        ("x ${model}", "a mapping or a list cannot be a part of a string"),
        ("x ${model.sizes}", "a mapping or a list cannot be a part of a string"),
        ("${value}", "references form a cycle: value → value"),
        ("${env:UNSET}", "environment variable UNSET is not set and has no default; write ${env:UNSET,default}"),
        ("${env:int:WORD}", "environment variable WORD is no int (its value is not shown)"),
        ("${env:float:WORD}", "environment variable WORD is no float (its value is not shown)"),
        ("${env:bool:SMITH}", "environment variable SMITH is no bool (its value is not shown)"),
        ("${env:json:WORD}", "environment variable WORD is no json (its value is not shown)"),
        ("${env:int:UNSET,x}", "the default is 'x', which is no int"),
        ("${env:UNSET,[1]}", "a default that is a list or a mapping needs the cast json"),
        ("${env:itn:SMITH}", "unknown cast 'itn' (did you mean 'int'?); casts: int, float, bool, json"),
        ("${env:}", "env takes the name of a variable and a default: ${env:NAME,default}"),
        ("${env:a,b,c}", "env takes the name of a variable and a default: ${env:NAME,default}"),
    ],
)
def test_what_leads_nowhere_is_a_problem(text, message):
    assert problems(text, model={"type": "mlp", "sizes": [1]}) == [f"value: {text!r}: {message}"]


@pytest.mark.parametrize("text", ["cost ${", "${}", "${a b}", "${a", "${[}", "${a.}", "${env:UNSET,}", "${env:a b:${}"])
def test_what_cannot_be_read_is_a_problem_with_the_remedy(text):
    (message,) = problems(text)
    assert message.startswith(f"value: {text!r}: cannot be read as an interpolation (")
    assert message.endswith(r"; write \${ for a plain ${")


def test_cycles_show_their_chain_once():
    assert problems("${a}", a="x${b.c}", b={"c": "${value}"}) == [
        "b.c: '${value}': references form a cycle: value → a → b.c → value"
    ]
    assert problems({"x": {"y": "${value.x}"}}) == [
        "value.x.y: '${value.x}': references form a cycle: value.x → value.x.y → value.x"
    ]
    assert len(problems("${b.c}", b={"c": "${b}"})) == 1


def test_a_broken_value_is_reported_once():
    assert problems("${a}", a="${gone}", b=["${a}", "x${a}"], c="${b}") == [
        "a: '${gone}': there is no 'gone' in the top level"
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${env:SMITH}", "12"),
        ("${env: SMITH }", "12"),
        ("${env:int:SMITH}", 12),
        ("${env:float:SMITH}", 12.0),
        ("${env:json:SMITH}", 12),
        ("${env:WORD}", "a ${b} word"),
        ("x${env:WORD}", "xa ${b} word"),
        ("x${env:int:SMITH}", "x12"),
        ("${env:UNSET,''}", ""),
        ("${env:UNSET,word}", "word"),
        ("${env:UNSET,two words}", "two words"),
        ("${env:UNSET,'a, b'}", "a, b"),
        ("${env:UNSET,7}", "7"),
        ("${env:UNSET,3e-4}", "3e-4"),
        ("${env:UNSET,true}", "true"),
        ("${env:UNSET,null}", None),
        ("${env:UNSET,???}", "???"),
        ("${env:UNSET,http://host:80/x}", "http://host:80/x"),
        ("${env:int:UNSET,7}", 7),
        ("${env:int:UNSET,1_000}", 1000),
        ("${env:int:UNSET,0x10}", 16),
        ("${env:int:UNSET,null}", None),
        ("${env:int:UNSET,${seven}}", 7),
        ("${env:UNSET,${seven}}", "7"),
        ("${env:UNSET,${env:SMITH}}", "12"),
        ("${env:float:UNSET,3e-4}", 3e-4),
        ("${env:float:UNSET,7}", 7.0),
        ("${env:bool:UNSET,yes}", True),
        ("${env:bool:UNSET,0}", False),
        ("${env:bool:UNSET,False}", False),
        ("${env:json:UNSET,[1, {a: 2}]}", [1, {"a": 2}]),
        ("${env:json:UNSET,3}", 3),
        ("${env:json:UNSET,${list}}", [1]),
        ("${env:json:UNSET,'[2]'}", [2]),
    ],
)
def test_environment_variables_take_casts_and_defaults(text, value):
    found = resolved(text, seven=7, list=[1])
    assert found == value and type(found) is type(value)


def test_json_from_the_environment_is_data_to_refer_to(monkeypatch):
    monkeypatch.setenv("DATA", '{"a": {"b": [1, "${x}"]}}')
    data = load({"d": "${env:json:DATA}", "e": "${d.a.b[0]}", "f": "${d.a}"}).data
    assert data == {"d": {"a": {"b": [1, "${x}"]}}, "e": 1, "f": {"b": [1, "${x}"]}}
    assert "cannot be a part of a string" in problems("x${env:json:DATA}")[0]
    assert problems("${env:json:UNSET,{1: 2}}") == ["value: key 1 is of type int; keys are strings"]


@pytest.fixture
def user_resolver():
    """Registers a resolver as users do; OmegaConf 2.4 renamed the function and warns of the old name."""
    names = []

    def register(name: str) -> None:
        names.append(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            OmegaConf.register_new_resolver(name, lambda *args: "theirs")

    yield register
    for name in names:
        OmegaConf.clear_resolver(name)


@pytest.mark.parametrize("name", ["oc.env", "oc.decode", "oc.select", "oc.create", "theirs", "${name}"])
def test_resolvers_of_omegaconf_and_of_users_cannot_be_reached(name, user_resolver):
    user_resolver("theirs")
    for text in ("${NAME:HOME}", "x${NAME:HOME}", "${env:UNSET,${NAME:HOME}}"):
        (message,) = problems(text.replace("NAME", name), name="oc.env")
        assert "unknown resolver" in message


def test_a_resolver_of_users_named_env_is_neither_used_nor_touched(user_resolver):
    user_resolver("env")
    assert resolved("${env:SMITH}!") == "12!"
    assert OmegaConf.create({"a": "${env:SMITH}"}).a == "theirs"


def test_no_resolver_is_registered():
    assert resolved("${env:SMITH}") == "12"
    assert not OmegaConf.has_resolver("env")
