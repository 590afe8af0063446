"""The experiment's sections: checked with places, written out whole, and registered by whoever has them."""

from dataclasses import dataclass
from pathlib import Path

import pytest

import policysmith.api  # noqa: F401 - registers every type
from policysmith.config import experiment
from policysmith.config.experiment import decode_experiment
from policysmith.config.json_schema import experiment_schema
from policysmith.config.load import load
from policysmith.errors import ConfigError
from policysmith.policy.sections import Execution, Spaces, decode_execution
from policysmith.registry import Registry, default_registry
from policysmith.types import Count

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
    assert decode({}).of(Execution) == decode({"execution": None}).of(Execution) == Execution()
    assert Execution() == Execution(amp=False, compile=False, channels_last=False)


def test_the_resolved_experiment_holds_the_settings_and_decodes_to_itself():
    experiment = decode({"execution": {"amp": "auto"}, "spaces": SPACES}, ["execution.channels_last=true"])
    assert experiment.of(Execution) == Execution(amp="auto", channels_last=True)
    resolved = experiment.resolved()
    assert resolved["execution"]["amp"] == "auto" and resolved["execution"]["channels_last"] is True
    again = decode_experiment(load(resolved), default_registry)
    assert again.resolved() == resolved
    assert (again.of(Execution), again.find(Spaces)) == (experiment.of(Execution), experiment.find(Spaces))


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
    assert decode({"execution": "parallel"}).of(Execution) == Execution(executor="parallel")
    both = {"executor": "parallel", "amp": True}
    assert decode({"execution": both}).of(Execution) == Execution(amp=True, executor="parallel")
    (tmp_path / "policy.yaml").write_text("model: mlp\nexecution: paralel\n")
    with pytest.raises(ConfigError) as caught:
        decode_experiment(load(tmp_path / "policy.yaml"), default_registry)
    (problem,) = caught.value.problems
    assert problem.path == "execution" and problem.place.endswith("policy.yaml:2:12")
    assert "unknown value 'paralel' (did you mean 'parallel'?)" in problem.message


@dataclass(frozen=True)
class Curriculum:
    """Which tasks come first.

    Args:
        stages: How many steps of difficulty there are.
    """

    stages: Count = 3


class TestSectionsOfOthers:
    """A section that a plugin registers is one like the others."""

    @pytest.fixture
    def registry(self):
        fresh = default_registry.copy()
        fresh.register("curriculum", slot="section", after="training")(Curriculum)
        return fresh

    def read(self, registry, **sections):
        return decode_experiment(load({"model": "mlp", "training": "ppo", "store": {}, **sections}), registry)

    def test_it_is_decoded_and_written_out_in_its_place(self, registry):
        experiment = self.read(registry, curriculum={"stages": 5})
        assert experiment.find(Curriculum) == Curriculum(5)
        written = list(experiment.resolved())
        assert written.index("curriculum") == written.index("training") + 1
        again = decode_experiment(load(experiment.resolved()), registry)
        assert again.resolved() == experiment.resolved()

    def test_a_file_may_leave_it_out(self, registry):
        assert self.read(registry).find(Curriculum) is None
        always = default_registry.copy()
        always.register("curriculum", slot="section", always=True)(Curriculum)
        assert self.read(always).of(Curriculum) == Curriculum()
        assert list(self.read(always).resolved())[-1] == "curriculum"

    def test_what_is_wrong_in_it_is_told_with_its_path(self, registry):
        with pytest.raises(ConfigError) as caught:
            self.read(registry, curriculum={"stages": 0, "steps": 1})
        assert [problem.path for problem in caught.value.problems] == ["curriculum.stages", "curriculum.steps"]

    def test_the_json_schema_tells_it_with_its_options(self, registry):
        section = experiment_schema(registry)["properties"]["curriculum"]
        assert section["description"] == "Which tasks come first."
        assert "How many steps of difficulty" in str(section)

    def test_others_do_not_know_it(self):
        with pytest.raises(ConfigError, match=r"unknown section; there are: model, format, name, seed, environment, "):
            self.read(default_registry, curriculum={})

    def test_an_empty_registry_has_the_sections_that_come_with_the_package(self):
        assert [entry.name for entry in Registry().sections()] == [
            "environment", "spaces", "observation", "model", "execution", "training", "self_play", "evaluation",
            "store", "limits",
        ]  # fmt: skip


def test_config_knows_no_section_by_name():
    """The rooms above have them. A model's files are read here, and search spaces stand in three sections alone."""
    known = {entry.name for entry in default_registry.sections()}
    exempt = {"inline_files.py": {"model"}, "search_spaces.py": {"model", "training", "environment"}}
    for file in Path(experiment.__file__).parent.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert {name for name in known if f'"{name}"' in text} <= exempt.get(file.name, set()), file
