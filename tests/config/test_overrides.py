"""Overrides change single values from the command line, and win over files, defaults and templates."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest

from policysmith.config.load import load
from policysmith.errors import ConfigError

SOURCE = {"model": {"hidden": [64, {"size": 32}], "type": "mlp", "none": None}, "a.b": {"c": 1}, "0": {"1": "x"}}


def after(*overrides: str, source=SOURCE):
    return load(copy.deepcopy(source), overrides).data


def problems(*overrides: str, source=SOURCE) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        after(*overrides, source=source)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3e-4", 3e-4),
        ("1_000", 1000),
        ("true", True),
        ("no", "no"),
        ("", None),
        ("null", None),
        (".inf", math.inf),
        ("'3'", "3"),
        ('"a\\tb"', "a\tb"),
        ("[1, 2]", [1, 2]),
        ("[]", []),
        ("{x: 1, y: [no]}", {"x": 1, "y": ["no"]}),
        ("a b", "a b"),
        ("a: b", "a: b"),
        ("a # b", "a # b"),
        ("x=y", "x=y"),
        ("*", "*"),
        ("!x", "!x"),
        ("- 1", "- 1"),
        ("|", "|"),
        ("@home", "@home"),
        ("C:\\dir", "C:\\dir"),
    ],
)
def test_a_value_is_one_scalar_or_yaml_in_brackets_or_quotes(text, value):
    assert after(f"model.new={text}")["model"]["new"] == value
    assert after(f" model.new = {text} ")["model"]["new"] == value


def test_values_are_set_in_mappings_and_lists():
    assert after("model.type=moe")["model"]["type"] == "moe"
    assert after("model.hidden.0=1")["model"]["hidden"] == [1, {"size": 32}]
    assert after("model.hidden[1].size=1")["model"]["hidden"] == [64, {"size": 1}]
    assert after("model.hidden=[128]")["model"]["hidden"] == [128]
    assert after("0.1=2")["0"] == {"1": 2}


def test_new_keys_are_created_with_what_is_above_them():
    assert after("training.optimizer.lr=3e-4")["training"] == {"optimizer": {"lr": 3e-4}}


def test_a_key_with_a_dot_goes_in_brackets():
    assert after("[a.b].c=2")["a.b"] == {"c": 2}


def test_removal_takes_keys_and_items_away():
    assert "type" not in after("~model.type")["model"]
    assert after("~model.hidden.0")["model"]["hidden"] == [{"size": 32}]
    assert after("~model.hidden[1].size")["model"]["hidden"] == [64, {}]


def test_overrides_apply_in_their_order():
    assert after("model={x: 1}", "model.y=2", "~model.x", "model.z=[1]", "model.z[0]=2")["model"] == {"y": 2, "z": [2]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.type", "no '='; write 'a.b=value' to set and '~a.b' to remove; '+name' lays a profile over"),
        ("model.type.x=1", "model.type.x: nothing can be set below model.type, which is 'mlp'"),
        ("model.none.x=1", "model.none.x: nothing can be set below model.none, which is null"),
        ("~model.type.x", "model.type.x: nothing can be removed below model.type, which is 'mlp'"),
        ("model.hidden.2=1", "model.hidden.2: model.hidden is a list and takes an index from 0 to 1; found 2"),
        ("model.hidden[-1]=1", "model.hidden.-1: model.hidden is a list and takes an index from 0 to 1; found -1"),
        ("model.hidden.size=1", "model.hidden.size: model.hidden is a list and takes an index from 0 to 1; found size"),
        ("~model.typ", "model.typ: there is no 'typ' in model (did you mean 'type'?)"),
        ("~modl.type", "modl.type: there is no 'modl' in the top level (did you mean 'model'?)"),
        ("model.new[0]=1", "model.new.0: there is no list to which index 0 could belong"),
        ("~model.type=1", "a removal takes no value; write '~a.b' to remove and 'a.b=value' to set"),
        (
            "defaults=[x]",
            "defaults are read before overrides; lay a file over with '+name', or set the value itself",
        ),
        ("=1", "'' is not a path; write keys with dots and indices in brackets, as in 'a.b[0]'"),
        ("a..b=1", "'a..b' is not a path; write keys with dots and indices in brackets, as in 'a.b[0]'"),
        (".a=1", "'.a' is not a path; write keys with dots and indices in brackets, as in 'a.b[0]'"),
        ("a[0=1", "'a[0' is not a path; write keys with dots and indices in brackets, as in 'a.b[0]'"),
        ("~", "'' is not a path; write keys with dots and indices in brackets, as in 'a.b[0]'"),
        ("a={x: 1, x: 2}", "a.x: duplicate key 'x' (first at override 'a={x: 1, x: 2}')"),
        ("a=!!x", None),
    ],
)
def test_what_cannot_be_done_is_a_problem_that_quotes_the_override(override, message):
    if message is None:
        assert after(override)["a"] == "!!x"
    else:
        assert problems(override) == [f"override {override!r}  {message}"]


def test_a_value_that_is_no_yaml_is_a_problem():
    (message,) = problems("model.type=[1, 2")
    assert message.startswith("override 'model.type=[1, 2'  model.type: not valid YAML: ")
    (message,) = problems('model.type="x" y')
    assert "not valid YAML" in message
    (message,) = problems("model.type=['\udcff']")
    assert "not valid YAML" in message
    (message,) = problems("model.type=" + "1" * 5000)
    assert message.endswith("has too many digits")


def test_every_bad_override_is_reported():
    assert len(problems("x", "model.type.y=1", "model.type=ok", "~z")) == 3
    assert problems(3)[0] == "override 3  an override is a text such as 'model.hidden=[64]', found a int"  # type: ignore[arg-type]


def test_overrides_come_after_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("a: {x: [1, 2]}")
    assert after("a.x[1]=3", source={"defaults": "base.yaml"}) == {"a": {"x": [1, 3]}}


def test_overrides_come_before_references():
    assert after("x=5", "z=${y}", source={"x": 1, "y": "${x}"}) == {"x": 5, "y": 5, "z": 5}


def test_an_alias_is_changed_only_where_the_override_points(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text("a: &a {x: 1}\nb: *a\n")
    assert load("policy.yaml", ["b.x=2"]).data == {"a": {"x": 1}, "b": {"x": 2}}


TEMPLATED = {
    "templates": {
        "base": {"norm": {"type": "rms", "eps": 1}},
        "block": {"template": "base", "heads": 4, "hidden": [1, 2], "norm": {"bias": True}, "drop": 0.1},
    },
    "a": {"template": "block"},
    "b": {"template": "block", "norm": {"eps": 2}},
}


def test_overrides_of_a_template_reach_all_its_uses():
    data = after("templates.block.heads=8", "~templates.base.norm.eps", "~templates.block.drop", source=TEMPLATED)
    assert data["a"] == {"norm": {"type": "rms", "bias": True}, "heads": 8, "hidden": [1, 2]}
    assert data["b"]["heads"] == 8 and data["b"]["norm"] == {"type": "rms", "eps": 2, "bias": True}
    data = after("templates.block.norm.type=layer", "templates.block.norm.eps=5", source=TEMPLATED)
    assert data["a"]["norm"] == {"type": "layer", "eps": 5, "bias": True}


def test_overrides_below_a_use_win_over_the_template():
    data = after("a.heads=8", "a.hidden[1]=5", "a.norm.eps=7", "~a.norm.bias", "~a.drop", "a.new.x=1", source=TEMPLATED)
    assert data["a"] == {"norm": {"type": "rms", "eps": 7}, "heads": 8, "hidden": [1, 5], "new": {"x": 1}}
    assert data["b"]["hidden"] == [1, 2] and data["b"]["heads"] == 4


def test_overrides_can_choose_the_template():
    assert after("a.template=base", source=TEMPLATED)["a"] == {"norm": {"type": "rms", "eps": 1}}
    assert after("b.norm.template=base", source=TEMPLATED)["b"]["norm"]["norm"] == {"type": "rms", "eps": 1}
    assert after("a.norm={template: base}", "a.norm.x=1", source=TEMPLATED)["a"]["norm"]["x"] == 1
    assert after("~a.template", source=TEMPLATED)["a"] == {}
    assert after("a.heads=8", "~a.template", source=TEMPLATED)["a"] == {"heads": 8}
    assert after("c={template: base}", "~c.norm.eps", source=TEMPLATED)["c"] == {"norm": {"type": "rms"}}
    assert after("a.heads=8", "a={template: base}", source=TEMPLATED)["a"] == {"norm": {"type": "rms", "eps": 1}}


def test_overrides_of_a_templated_top_level_work():
    source = {"templates": {"t": {"x": [1, 2]}}, "template": "t"}
    assert after("x[0]=5", "y=1", source=source) == {"x": [5, 2], "y": 1}
    assert after("templates.t.x[0]=6", source=source) == {"x": [6, 2]}


def test_what_cannot_be_done_below_a_template_is_a_problem_too():
    assert problems("a.heads.x=1", "~a.nrm", "a.hidden.9=1", "a.new[0]=1", source=TEMPLATED) == [
        "override 'a.heads.x=1'  a.heads.x: nothing can be set below a.heads, which is 4",
        "override '~a.nrm'  a.nrm: there is no 'nrm' in a (did you mean 'norm'?)",
        "override 'a.hidden.9=1'  a.hidden.9: a.hidden is a list and takes an index from 0 to 1; found 9",
        "override 'a.new[0]=1'  a.new.0: there is no list to which index 0 could belong",
    ]
