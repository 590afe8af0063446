"""Runs: prepared whole or not at all, and every trained expert is stored under its own number."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import yaml

from policysmith.errors import CheckpointError, SkillError
from policysmith.skills import (
    ActorCriticMoE,
    MoECheckpoint,
    PlanStep,
    build_remapping,
    load_expert,
    load_experts,
    load_moe_checkpoint,
    load_training_run,
    moments_of,
    parse_skill_module,
    prepare_training_run,
    process_completed_training,
    restore_moments,
    task_to_skill,
)
from policysmith.skills.experts.parameter_names import of_expert
from policysmith.skills.modules import inject
from policysmith.skills.runs.completed_training import skill_and_folder
from policysmith.store.files import replace_directory

from .modules import plan_of
from .test_generate import CODES
from .test_moe_checkpoint import library, model_of

CODE = plan_of(0, 2, 7)
DEPENDENCIES = ["Skill 2", "Skill 0"]


def prepare(tmp_path, completed, code=CODE, dependencies=DEPENDENCIES, index=7, **options):
    data = {"code": code} if isinstance(code, str) else code
    return prepare_training_run("Make: Pickaxe", data, dependencies, index, completed, root=tmp_path, **options)


def train(run, *tasks, number=1, frames=1000):
    """What a run's worker does: start from the seed, train these local experts, store what came of it."""
    seed = load_moe_checkpoint(run.policies_folder / "0")
    model = model_of(run.num_experts)
    load_experts(model, seed)
    torch.manual_seed(frames)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    restore_moments(optimizer, model, seed.moments)
    for _ in range(2):
        logits, value = model(torch.randn(12, 5), torch.tensor(tasks).repeat(12)[:12])
        optimizer.zero_grad()
        (logits.square().sum() + (value - 1).square().sum()).backward()
        optimizer.step()
    total = {local: seed.frames.get(local, 0) + frames * (local in tasks) for local in range(run.num_experts)}
    MoECheckpoint(model.state_dict(), moments_of(optimizer, model), total).save(run.policies_folder / str(number))
    return model


def test_a_run_unpacks_as_folder_and_module(tmp_path):
    run = prepare(tmp_path, library(tmp_path, 0, 2, 5))
    run_folder, module_path = run
    assert run_folder == tmp_path / "training_runs" / "skill_7_Make_Pickaxe" and module_path == run_folder / "7.py"
    assert run.policies_folder == run_folder / "7_policies" and run.num_experts == 3 and run.trained == (7,)
    assert run.remap == ({0: 0, 2: 1, 7: 2}, {0: 0, 1: 2, 2: 7})
    assert task_to_skill(parse_skill_module(module_path.read_text())) == [0, 1, 2]
    assert sorted(path.name for path in run_folder.iterdir()) == ["7.py", "7_policies", "config.yaml", "remap.json"]
    again = load_training_run(run_folder)
    assert (again.remap, again.module_path, again.trained) == (run.remap, run.module_path, run.trained)


def test_remap_json_says_how_to_get_back(tmp_path):
    completed = library(tmp_path, 0, 2)
    run = prepare(tmp_path, completed, {"code": CODE, "config": {"total_steps": 5}, "skill_with_consumption": {"a": 1}})
    about = json.loads((run.run_folder / "remap.json").read_text())
    assert about["global_to_local"] == {"0": 0, "2": 1, "7": 2} and about["local_to_global"] == {"0": 0, "1": 2, "2": 7}
    assert about["initial_frame_counts"] == {"0": 0, "2": 200} and about["dependencies"] == DEPENDENCIES
    assert (about["skill_name"], about["global_expert_idx"]) == ("Make: Pickaxe", 7)
    assert about["skill_with_consumption"] == {"a": 1}
    config = yaml.safe_load((run.run_folder / "config.yaml").read_text())
    assert config == {"skill": "Make: Pickaxe", "num_experts": 3, "total_steps": 5}


def test_a_run_holds_the_experts_that_its_module_uses(tmp_path):
    completed = library(tmp_path, 0, 1, 2)
    run = prepare(tmp_path, completed, plan_of(2, 7), ["Skill 0", "Skill 1", "Skill 2"])
    assert run.remap.global_to_local == {2: 0, 7: 1} and run.seed.experts == [0]
    one = (tmp_path / "skills/2_Skill/expert_2_policy/model.safetensors").stat().st_size
    assert run.seed.bytes_read == one


def test_a_module_comes_from_a_plan_as_well(tmp_path):
    completed = {"Collect Wood": library(tmp_path, 0)["Skill 0"]}
    data = {"execution_plan": [{"skill": "Collect Wood", "count": 4}, PlanStep("Place-Table")], "codes": CODES}
    run = prepare_training_run("Place-Table", data, ["Collect Wood"], 7, completed, root=tmp_path)
    assert "n=4" in run.module_path.read_text()
    assert task_to_skill(parse_skill_module(run.module_path.read_text())) == [0, 1]


def test_running_the_module_can_be_left_to_the_worker(tmp_path, monkeypatch):
    def refuse(*_):
        raise SkillError("a process was started")

    monkeypatch.setattr(inject, "SkillProcess", refuse)
    completed = library(tmp_path, 0, 2)
    with pytest.raises(SkillError, match="a process was started"):
        prepare(tmp_path, completed)
    run = prepare(tmp_path, completed, execute=False)
    assert task_to_skill(parse_skill_module(run.module_path.read_text())) == [0, 1, 2]


def test_51_experts_of_which_3_are_used_make_a_run_of_4(tmp_path):
    completed = library(tmp_path, 3, 17, 44, moments=False)
    completed |= {f"Skill {i}": {"expert_idx": i, "path": "nowhere"} for i in range(50) if i not in (3, 17, 44)}
    run = prepare(tmp_path, completed, plan_of(3, 17, 44, 50), ["Skill 3", "Skill 17", "Skill 44"], 50)
    assert run.num_experts == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dependencies": ["Skill 2"]}, r"does not hold: 0 \(task 0\); it holds 2, 7"),
        ({"dependencies": ["Skill 9"]}, "not completed"),
        ({"index": 8}, "never uses expert 8"),
        ({"code": CODE + "\nimport os\n"}, "importing 'os'"),
        ({"code": {"source": ""}}, "either code or execution_plan"),
        ({"features": ["inventory"]}, "task_0_is_done reads 'x'"),
        ({"train": ["Skill 5"]}, "is no dependency"),
    ],
)
def test_what_cannot_be_prepared_leaves_nothing_behind(tmp_path, change, told):
    completed = library(tmp_path, 0, 2, 5)
    with pytest.raises(SkillError, match=told):
        prepare(tmp_path, completed, **change)
    assert not (tmp_path / "training_runs").exists() or not list((tmp_path / "training_runs").iterdir())


def test_a_run_that_is_there_is_not_overwritten(tmp_path):
    completed = library(tmp_path, 0, 2)
    run = prepare(tmp_path, completed)
    train(run, 2)
    with pytest.raises(SkillError, match="exists already: process or remove"):
        prepare(tmp_path, completed)
    assert (run.policies_folder / "1").is_dir()
    assert [path.name for path in run.run_folder.parent.iterdir()] == [run.run_folder.name]


def test_a_damaged_expert_stops_a_run_before_it_begins(tmp_path):
    completed = library(tmp_path, 0, 2)
    (tmp_path / "skills/2_Skill/expert_2_policy/model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="2_Skill"):
        prepare(tmp_path, completed)
    assert not (tmp_path / "training_runs").exists() or not list((tmp_path / "training_runs").iterdir())


def test_a_trained_expert_comes_home_and_frozen_ones_stay(tmp_path):
    completed = library(tmp_path, 0, 2)
    run = prepare(tmp_path, completed)
    model = train(run, 2)
    outcomes = process_completed_training(run.run_folder)
    assert [(o.expert, o.status) for o in outcomes] == [(0, "unchanged"), (2, "unchanged"), (7, "new")]
    folder = tmp_path / "skills" / "7_Make_Pickaxe" / "expert_7_policy"
    found = load_expert(folder, moments=True)
    assert (found.index, found.skill_name, found.frames, found.parents) == (7, "Make: Pickaxe", 1000, ())
    for name, tensor in of_expert(model.state_dict(), 2).items():
        assert torch.equal(found.weights[name], tensor)
    assert len(found.moments) == 48, "for whoever continues it"
    assert [path.name for path in (folder / "versions").iterdir()] == [found.version]
    zero = load_expert(completed["Skill 0"]["path"])
    assert zero.frames == 0, "frames are credited to the experts that were used"


def test_doing_it_again_changes_nothing(tmp_path):
    run = prepare(tmp_path, library(tmp_path, 0, 2))
    train(run, 2)
    first = process_completed_training(run.run_folder)
    files = {path: path.read_bytes() for path in (tmp_path / "skills").rglob("*") if path.is_file()}
    again = process_completed_training(run.run_folder)
    assert [(o.expert, o.version) for o in again] == [(o.expert, o.version) for o in first]
    assert {o.status for o in again} == {"unchanged"}
    assert files == {path: path.read_bytes() for path in (tmp_path / "skills").rglob("*") if path.is_file()}


def test_twelve_experts_come_home_under_their_own_numbers(tmp_path):
    indices = [0, 1, 2, 3, 5, 8, 10, 11, 12, 20, 21]
    completed = library(tmp_path, *indices, moments=False)
    run = prepare(tmp_path, completed, plan_of(*indices, 30), list(completed), 30, train=list(completed))
    model = train(run, *range(12))
    outcomes = process_completed_training(run.run_folder)
    assert [o.expert for o in outcomes] == [*indices, 30] and {o.status for o in outcomes[:-1]} == {"continued"}
    for local, outcome in enumerate(outcomes):
        found = load_expert(outcome.folder)
        for name, tensor in of_expert(model.state_dict(), local).items():
            assert torch.equal(found.weights[name], tensor), (outcome.expert, name)


def test_a_continued_expert_goes_on_from_its_weights_and_moments(tmp_path):
    completed = library(tmp_path, 0, 2)
    run = prepare(tmp_path, completed, plan_of(0, 2), ["Skill 0"], 2)
    seed = load_moe_checkpoint(run.policies_folder / "0")
    before = load_expert(completed["Skill 2"]["path"], moments=True)
    for name, tensor in of_expert(seed.weights, 1).items():
        assert torch.equal(tensor, before.weights[name]), "not from random"
    assert set(of_expert(seed.moments, 1)) == set(before.moments)
    train(run, 0, 1)
    outcomes = process_completed_training(run.run_folder)
    assert [(o.expert, o.status) for o in outcomes] == [(0, "frozen"), (2, "continued")]
    after = load_expert(completed["Skill 2"]["path"])
    assert after.parents == (before.version,) and after.frames == 200 + 1000
    assert load_expert(completed["Skill 0"]["path"]).version == seed.versions[0], "a dependency does not move"
    old = load_expert(outcomes[1].folder / "versions" / before.version)
    assert old.version == before.version, "what was there before is not lost"


def test_two_runs_that_continue_one_expert_both_survive(tmp_path):
    completed = library(tmp_path, 0)
    runs = [prepare(tmp_path, completed, plan_of(0, index), ["Skill 0"], index, train=["Skill 0"]) for index in (7, 8)]
    for run, frames in zip(runs, (5, 9), strict=True):
        train(run, 0, 1, frames=frames)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(process_completed_training, [run.run_folder for run in runs]))
    zero = [found[0] for found in outcomes]
    assert sorted(o.status for o in zero) == ["branch", "continued"] and zero[0].version != zero[1].version
    for outcome, frames in zip(zero, (5, 9), strict=True):
        kept = load_expert(outcome.folder / "versions" / outcome.version)
        assert kept.frames == frames, "the one with fewer frames is kept, too"
    head = load_expert(zero[0].folder)
    assert head.version == next(o.version for o in zero if o.status == "continued")


def test_an_expert_that_the_run_does_not_own_is_not_taken_for_its_skill(tmp_path):
    run = prepare(tmp_path, library(tmp_path, 0, 2))
    MoECheckpoint(model_of(4).state_dict()).save(run.policies_folder / "1")
    with pytest.raises(SkillError, match="its checkpoint holds experts 0, 1, 2, 3, and its module 3"):
        process_completed_training(run.run_folder)
    about = json.loads((run.run_folder / "remap.json").read_text())
    del about["experts"]["2"]
    replace_directory(run.run_folder, {"remap.json": json.dumps(about).encode()}, {"remap.json"})
    with pytest.raises(SkillError, match="expert 2 belongs to no skill"):
        skill_and_folder(load_training_run(run.run_folder), 2, tmp_path)


def test_what_is_missing_is_told_at_once(tmp_path):
    """And not taken for a lock that somebody holds."""
    run = prepare(tmp_path, library(tmp_path, 0, 2))
    with pytest.raises(SkillError, match="no checkpoint but the one the run started from"):
        process_completed_training(run.run_folder)
    with pytest.raises(SkillError, match="holds no checkpoint"):
        process_completed_training(run.run_folder, checkpoint=tmp_path / "nowhere")
    with pytest.raises(SkillError, match="is no training run"):
        process_completed_training(tmp_path)
    train(run, 2, number=9)
    train(run, 2, number=10)
    (run.policies_folder / "10" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"10/model\.safetensors"):
        process_completed_training(run.run_folder)


def test_maps_and_model_go_together(tmp_path):
    remap = build_remapping(["Skill 0", "Skill 2"], 7, library(tmp_path, 0, 2))
    model = ActorCriticMoE(3, 8, num_tasks=len(remap.global_to_local), in_features=5)
    assert model.num_tasks == 3


def test_reading_and_running_modules_loads_no_torch():
    code = (
        "import sys; from policysmith.skills import SkillProcess, parse_skill_module;"
        f"SkillProcess(parse_skill_module({plan_of(0)!r})).close(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
