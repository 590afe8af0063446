"""Presets and profiles by name: under a file by `defaults`, or over it by `+name`."""

from pathlib import Path

import pytest

from policysmith.config.load import load
from policysmith.config.preset_files import PRESETS, PROFILES, locate, preset_names, profile_names
from policysmith.errors import ConfigError

FAST = {"amp": "auto", "compile": "auto", "channels_last": True}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name, text):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


def problems(source, overrides=()):
    with pytest.raises(ConfigError) as caught:
        load(source, overrides)
    return [str(problem) for problem in caught.value.problems]


def test_no_name_is_both_a_preset_and_a_profile():
    assert preset_names() and profile_names()
    assert not set(preset_names()) & set(profile_names())


def test_a_profile_is_laid_under_a_file_that_names_it():
    write("main.yaml", "defaults: [fast-inference]\nexecution: {amp: false}\nseed: 1\n")
    document = load("main.yaml")
    assert document.data == {"execution": {**FAST, "amp": False}, "seed": 1}
    assert document.place(("execution", "compile")).file == str(PROFILES / "fast-inference.yaml")


def test_a_preset_in_a_folder_is_named_with_it():
    assert load({"defaults": ["board/tiny", "fast-inference"]}).data["execution"] == FAST
    assert load({"defaults": "board/tiny"}).data == load(PRESETS / "board" / "tiny.yaml").data


def test_a_file_of_that_name_comes_first():
    write("fast-inference", "seed: 4")
    assert load({"defaults": "fast-inference"}).data == {"seed": 4}
    assert load({}, ["+fast-inference"]).data == {"seed": 4}
    assert locate("fast-inference", Path("elsewhere")) == PROFILES / "fast-inference.yaml"


def test_a_similar_name_is_suggested():
    (message,) = problems({"defaults": ["fast-inferense"]})
    assert message.endswith("fast-inferense does not exist (did you mean 'fast-inference'?)")
    (message,) = problems({}, ["+board/lrage"])
    assert message.startswith("override '+board/lrage'  ") and "(did you mean 'board/large'?)" in message


def test_a_profile_is_laid_over_everything_the_file_says():
    write("main.yaml", "execution: {amp: false, compile_dynamic: true}\nseed: 1\n")
    document = load("main.yaml", ["+fast-inference"])
    assert document.data == {"execution": {**FAST, "compile_dynamic": True}, "seed": 1}


def test_a_value_that_is_set_wins_over_a_profile_wherever_it_stands():
    write("main.yaml", "seed: 1\n")
    for overrides in (["execution.amp=false", "+fast-inference"], ["+fast-inference", "execution.amp=false"]):
        assert load("main.yaml", overrides).data["execution"] == {**FAST, "amp": False}
    assert load("main.yaml", ["+fast-inference", "~execution"]).data == {"seed": 1}


def test_what_is_laid_over_may_be_a_file_with_defaults_of_its_own_and_several():
    write("profiles/base.yaml", "a: {x: 1, y: 1}")
    write("profiles/mine.yaml", "defaults: base.yaml\na: {y: 2}")
    write("main.yaml", "a: {x: 0, y: 0, z: 0}\n")
    assert load("main.yaml", ["+profiles/mine.yaml"]).data == {"a": {"x": 1, "y": 2, "z": 0}}
    write("last.yaml", "a: {z: 3}")
    assert load("main.yaml", ["+profiles/mine.yaml", "+last.yaml"]).data == {"a": {"x": 1, "y": 2, "z": 3}}


def test_a_template_takes_a_profile_over_itself():
    source = {"templates": {"t": {"amp": False, "channels_last": False}}, "execution": {"template": "t"}}
    assert load(source, ["+fast-inference"]).data["execution"] == FAST
    changed = load(source, ["execution.channels_last=false", "+fast-inference"]).data["execution"]
    assert changed == {**FAST, "channels_last": False}


def test_what_is_laid_over_and_is_not_there_is_a_problem_that_quotes_the_override(tmp_path):
    assert problems({}, ["+gone.yaml"]) == [f"override '+gone.yaml'  {tmp_path}/gone.yaml does not exist"]
    assert len(problems({}, ["+", "x"])) == 2


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_says_what_it_is_for_and_makes_no_experiment(name):
    text = (PROFILES / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert set(load(PROFILES / f"{name}.yaml").data) <= {"execution"}


@pytest.mark.parametrize("name", [name for name in preset_names() if not name.startswith("board/")])
def test_a_preset_trains_all_of_its_steps(name):
    data = load(PRESETS / f"{name}.yaml").data
    training = data["training"]
    assert training["total_steps"] % (training["rollout_steps"] * data["environment"]["num_envs"]) == 0
