"""Trained skills in use: judged by whole plans in a worker, and stored as one policy with the library's own experts."""

import json
from pathlib import Path

import pytest
import torch
from gymnasium import spaces
from typer.testing import CliRunner

import policysmith
from policysmith.cli.app import app
from policysmith.errors import ConfigError, SkillError
from policysmith.skills import SkillLibrary, load_expert, read_skills_file
from policysmith.skills.experts.parameter_names import of_expert
from policysmith.skills.serving import judging
from policysmith.skills.serving.exporting import policy_of
from policysmith.skills.serving.judging import Judgement, evaluate_skill
from policysmith.skills.training.__main__ import main

from .test_worker import TURN, finish

pytest.importorskip("minigrid")

FILE = """
environment: {type: minigrid, id: MiniGrid-Empty-5x5-v0, num_envs: 4, max_steps: 20}
model: {layer_width: 8, num_layers: 2}
training: {total_steps: 64, rollout_steps: 16, evaluation_episodes: 4, window: 20}
skills:
  Other: {code: other.py}
  Turn:  {code: turn.py}
  Back:  {code: back.py, plan: [Turn, Back]}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of three skills, all of them trained a little; the plan of `Back` holds experts 1 and 2."""
    root = tmp_path_factory.mktemp("skills")
    for name, direction in (("other", 1), ("turn", 3), ("back", 0)):
        (root / f"{name}.py").write_text(TURN.replace("3", str(direction)))
    (root / "skills.yaml").write_text(FILE)
    read = read_skills_file(root / "skills.yaml")
    library = SkillLibrary(read.library)
    for skill in read.skills:
        data = {"execution_plan": read.steps(skill), "codes": read.codes, "config": read.worker_config(skill)}
        run = library.prepare(skill, data, [name for name in read.plans[skill] if name != skill], execute=False)
        assert finish(run) == (0, "")
        library.process(run.run_folder)
    return read


def test_an_exported_policy_has_the_weights_of_the_librarys_heads(file, tmp_path):
    policy, library = policy_of(file, "Back"), SkillLibrary(file.library)
    assert policy.observations.space["task"] == spaces.Discrete(2)
    for task, skill in enumerate(["Turn", "Back"]):
        held = of_expert(policy.state_dict(), task)
        head = load_expert(library.folder_of(skill)).weights
        assert set(held) == set(head) and all(torch.equal(held[name], head[name]) for name in head)


def test_the_command_stores_an_artifact_that_names_its_experts(file, tmp_path):
    words = ["skills", "export", str(file.library.parent / "skills.yaml"), "Back", "--output", str(tmp_path / "back")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "Turn  task 0, expert 1" in done.output and "Back  task 1, expert 2" in done.output
    manifest = json.loads((tmp_path / "back" / "manifest.json").read_text())
    assert manifest["experts"] == {"0": 1, "1": 2}
    served, made = policysmith.load(tmp_path / "back"), policy_of(file, "Back")
    observation = {"observation": made.observations.space["observation"].sample(), "task": 1}
    assert served.predict(observation)[0] == made.predict(observation)[0]
    policysmith.save(served, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "manifest.json").read_text())["experts"] == manifest["experts"]
    assert CliRunner().invoke(app, words).exit_code == 1  # another policy lies there


def test_a_plan_is_judged_and_nothing_in_the_library_changes(file):
    def contents():
        files = (path for path in Path(file.library).rglob("*") if path.is_file() and "sqlite" not in path.name)
        return {path: path.stat().st_mtime_ns for path in files}

    def judge(folder):
        """Stands for the worker: it finds a run of both experts, of which one is new, and tells how it went."""
        return ("sh", "-c", f"grep -q num_experts:.2 {folder}/config.yaml && echo '{TOLD}' || exit 3", "sh")

    before = contents()
    assert evaluate_skill(file, "Back", 7, command=judge) == Judgement(7, 0.5, {"Turn": 1.0})
    with pytest.raises(SkillError, match=r"could not be evaluated \(exit status 1\): it said nothing"):
        evaluate_skill(file, "Back", 7, command=lambda folder: ("false",))
    assert contents() == before


def test_the_command_says_how_many_plans_were_done(file, monkeypatch):
    monkeypatch.setattr(judging, "evaluate_skill", lambda *_: Judgement(7, 0.5, {"A_Name_Of_Some_Length": 1.0}))
    words = ["skills", "eval", str(file.library.parent / "skills.yaml"), "A_Name_Of_Some_Length"]
    assert CliRunner().invoke(app, words).output.splitlines() == [
        "skill     A_Name_Of_Some_Length",
        "plans     50.0% of 7 done",
        "tasks     A_Name_Of_Some_Length  100.0% of those begun",
    ]


TOLD = '{"episodes": 7, "success_rate": 0.5, "scores": {"Turn": 1.0}}'


@pytest.mark.slow
def test_a_worker_judges_in_a_process_of_its_own(file):
    found = evaluate_skill(file, "Turn", 9)
    assert found.episodes == 9 and 0 <= found.success_rate <= 1 and set(found.scores) == {"Turn"}


def test_what_is_not_trained_or_not_there_is_told(file, tmp_path):
    with pytest.raises(SkillError, match=r"there is no skill 'Bakc' \(did you mean 'Back'"):
        policy_of(file, "Bakc")
    SkillLibrary(tmp_path)
    with pytest.raises(SkillError, match="'Turn' is not trained yet"):
        policy_of(read_skills_file(file.library.parent / "skills.yaml", library=tmp_path), "Back")
    with pytest.raises(SystemExit, match="usage"):
        main(["somewhere", "--evaluate", "many"])


@pytest.mark.parametrize("options", [{"experts": [3, 3, 5]}, {"experts": [3, 5], "num_tasks": 3}])
def test_the_numbers_of_experts_fit_the_model(options):
    observation = spaces.Dict(observation=spaces.Box(-1, 1, (4,)), task=spaces.Discrete(3))
    with pytest.raises(ConfigError, match=r"model\.experts: must be"):
        policysmith.build({"model": {"type": "moe", **options}}, observation, spaces.Discrete(2))
