"""The sections `execution` and `spaces`: checked with places, written out whole."""

import pytest

import policysmith.api  # noqa: F401 - registers every type
from policysmith.config.experiment import Execution, decode_execution, decode_experiment
from policysmith.config.load import load
from policysmith.errors import ConfigError
from policysmith.registry import default_registry

SPACES = {"observation": {"type": "box", "shape": [4]}, "action": {"type": "discrete", "n": 2}}


def decode(data, overrides=()):
    return decode_experiment(load({"model": "mlp", **data}, overrides), default_registry)


def problems(tmp_path, text):
    path = tmp_path / "policy.yaml"
    path.write_text(f"model: mlp\n{text}")
    with pytest.raises(ConfigError) as caught:
        decode_experiment(load(path), default_registry)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


def test_by_default_nothing_is_sped_up():
    assert decode({}).execution == decode({"execution": None}).execution == Execution()
    assert Execution() == Execution(amp=False, compile=False, channels_last=False)


def test_the_resolved_experiment_holds_the_settings_and_decodes_to_itself():
    experiment = decode({"execution": {"amp": "auto"}, "spaces": SPACES}, ["execution.channels_last=true"])
    assert experiment.execution == Execution(amp="auto", channels_last=True)
    resolved = experiment.resolved()
    assert resolved["execution"]["amp"] == "auto" and resolved["execution"]["channels_last"] is True
    again = decode_experiment(load(resolved), default_registry)
    assert again.resolved() == resolved
    assert (again.execution, again.spaces) == (experiment.execution, experiment.spaces)


def test_wrong_settings_are_told_with_their_places(tmp_path):
    text = "execution:\n  amp: maybe\n  compile_mode: fast\n  channel_last: true\n"
    assert problems(tmp_path, text) == [
        "3:8  execution.amp: expected true or false or 'auto', found 'maybe'",
        "4:17  execution.compile_mode: unknown value 'fast'; allowed: default, reduce-overhead, max-autotune, "
        "max-autotune-no-cudagraphs",
        "5:3  execution.channel_last: unknown option of 'execution' (did you mean 'channels_last'?)",
    ]


def test_a_mode_that_the_backend_does_not_have_is_refused(tmp_path):
    text = "execution: {compile_backend: aot_eager, compile_mode: max-autotune}\n"
    assert problems(tmp_path, text) == [
        "2:55  execution.compile_mode: the backend 'aot_eager' has no modes: leave it out, or take the backend "
        "'inductor'"
    ]


def test_settings_decode_alone_too():
    assert decode_execution({"compile": True}) == Execution(compile=True)
    with pytest.raises(ConfigError, match=r"^amp: expected true or false or 'auto', found 1$"):
        decode_execution({"amp": 1})


def test_wrong_spaces_are_told_with_their_places(tmp_path):
    text = (
        "spaces:\n  observation:\n    type: dict\n    spaces:\n      image: {type: bxo, shape: [3]}\n"
        "      rest: {type: box, shape: [0]}\n  action: {type: discrete, n: two}\n"
    )
    found = problems(tmp_path, text)
    assert [line.split("  ")[0] for line in found] == ["6:21", "7:33", "8:31"]
    assert "unknown space 'bxo' (did you mean 'box'?)" in found[0]
    assert "spaces.observation.spaces.rest.shape.0: must be > 0, found 0" in found[1]
    assert problems(tmp_path, "spaces: {action: {type: discrete, n: 2}}\n") == [
        "2:1  spaces.observation: required option of 'spaces' is missing"
    ]


def test_a_text_in_place_of_the_section_names_the_executor(tmp_path):
    assert decode({"execution": "parallel"}).execution == Execution(executor="parallel")
    both = {"executor": "parallel", "amp": True}
    assert decode({"execution": both}).execution == Execution(amp=True, executor="parallel")
    (tmp_path / "policy.yaml").write_text("model: mlp\nexecution: paralel\n")
    with pytest.raises(ConfigError) as caught:
        decode_experiment(load(tmp_path / "policy.yaml"), default_registry)
    (problem,) = caught.value.problems
    assert problem.path == "execution" and problem.place.endswith("policy.yaml:2:12")
    assert "unknown value 'paralel' (did you mean 'parallel'?)" in problem.message
