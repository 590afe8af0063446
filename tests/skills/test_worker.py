"""A worker trains one run's folder in a process of its own: to its goal, within its budget, on from where it was."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
import time

import pytest
import torch
import yaml

from policysmith.errors import PolicysmithError
from policysmith.skills import load_moe_checkpoint, prepare_training_run, process_completed_training
from policysmith.skills.experts.parameter_names import of_expert
from policysmith.skills.runs.training_run import CONFIG
from policysmith.skills.training import run_setup
from policysmith.skills.training.guard import executed
from policysmith.skills.training.worker import train_skill

pytest.importorskip("minigrid")
FORK = multiprocessing.get_context("fork")

NEVER = "def task_is_done(steps):\n    return steps < 0\n\n\ndef task_reward(steps):\n    return 0.1 * steps\n"
TURN = (
    "def task_is_done(direction):\n    return direction == 3\n\n\n"
    "def task_reward(direction):\n    return 1.0 if direction == 3 else 0.0\n"
)
CONFIGURATION = {
    "seed": 0,
    "environment": {"type": "minigrid", "id": "MiniGrid-Empty-5x5-v0", "num_envs": 4, "max_steps": 20},
    "model": {"layer_width": 8, "num_layers": 2},
    "training": {"total_steps": 256, "rollout_steps": 16, "evaluation_episodes": 8, "window": 20},
}


def prepare(root, code, name="Skill", index=0, plan=None, completed=None, **config):
    codes = {name: code, **{known: entry["code"] for known, entry in (completed or {}).items()}}
    data = {"execution_plan": [{"skill": skill} for skill in plan or [name]], "codes": codes,
            "config": {**CONFIGURATION, **config}}  # fmt: skip
    return prepare_training_run(name, data, list(completed or {}), index, completed or {}, root=root)


def start(run):
    """A worker, forked from here: an interpreter of its own takes seconds to import torch."""
    process = FORK.Process(target=_child, args=(run.run_folder,))
    process.start()
    return process


def _child(folder):
    with (folder / "worker.log").open("w") as log:
        try:
            status = train_skill(folder)
        except PolicysmithError as error:
            log.write(str(error))
            status = 1
    os._exit(status)


def finish(run):
    process = start(run)
    process.join(120)
    return process.exitcode, (run.run_folder / "worker.log").read_text()


def lines(run):
    file = run.run_folder / "progress.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_skill_is_trained_to_its_goal_and_its_dependency_stays(tmp_path):
    longer = {**CONFIGURATION["training"], "total_steps": 8192, "learning_rate": 1e-2}
    first = prepare(tmp_path, TURN, "Turn", success=0.9, training=longer)
    assert finish(first) == (0, "")
    result = json.loads((first.run_folder / "result.json").read_text())
    assert result["status"] == "solved" and result["scores"] == {"Turn": result["success_rate"]}
    (turn,) = process_completed_training(first.run_folder)
    completed = {"Turn": {"expert_idx": 0, "path": turn.folder, "code": TURN}}
    second = prepare(tmp_path, TURN.replace("3", "0"), "Back", 1, ["Turn", "Back"], completed)
    assert finish(second) == (0, "")
    result = json.loads((second.run_folder / "result.json").read_text())
    assert result["status"] == "budget" and result["steps"] == 256 and set(result["scores"]) == {"Turn", "Back"}
    began, ended = (load_moe_checkpoint(second.policies_folder / str(n)) for n in (0, 256))
    for name, tensor in of_expert(began.weights, 0).items():
        assert torch.equal(of_expert(ended.weights, 0)[name], tensor)
    assert ended.frames[0] == began.frames[0] and 0 < ended.frames[1] < 256
    assert not of_expert(ended.moments, 0) and of_expert(ended.moments, 1)
    assert [o.status for o in process_completed_training(second.run_folder)] == ["unchanged", "new"]


def test_a_signal_stops_it_with_a_checkpoint_from_which_it_goes_on(tmp_path):
    run = prepare(tmp_path, NEVER, training={**CONFIGURATION["training"], "total_steps": 10_000_000})
    process = start(run)
    wait_for(lambda: len(lines(run)) > 2)
    process.terminate()
    process.join(60)
    assert process.exitcode == 75 and not (run.run_folder / "result.json").exists()
    reached = lines(run)[-1]
    assert sorted(int(p.name) for p in run.policies_folder.iterdir()) == [0, reached["step"]]
    moments = load_moe_checkpoint(run.policies_folder / str(reached["step"])).moments
    process = start(run)
    wait_for(lambda: lines(run)[-1]["step"] > reached["step"])
    process.terminate()
    process.join(60)
    assert process.exitcode == 75
    further = lines(run)[-1]
    assert further["step"] > reached["step"] and further["seconds"] > reached["seconds"]
    later = load_moe_checkpoint(run.policies_folder / str(further["step"]))
    assert later.frames[0] == further["step"]
    steps = (
        [t for n, t in moments.items() if n.endswith("/step")],
        [t for n, t in later.moments.items() if n.endswith("/step")],
    )
    assert steps[0][0] > 0 and steps[1][0] > steps[0][0]  # Adam's count went on


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (NEVER.replace("0.1 * steps", "1.0 / (steps - 2)"), "ZeroDivisionError"),
        (NEVER.replace("0.1 * steps", "float(10 ** 400)"), "OverflowError"),
    ],
)
def test_code_that_fails_is_told_in_one_line(tmp_path, code, told):
    status, errors = finish(prepare(tmp_path, code))
    assert status == 1 and told in errors and "task_0_reward" in errors and len(errors.splitlines()) == 1


def test_what_the_file_must_say_is_checked(tmp_path):
    run = prepare(tmp_path, NEVER)
    config = yaml.safe_load((run.run_folder / CONFIG).read_text())
    config["training"] = {"type": "ppo"}
    (run.run_folder / CONFIG).write_text(yaml.safe_dump(config))
    assert finish(run)[1].strip().endswith("skills are trained by skill_ppo")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("return 0  # Skill", "return 3", r"uses experts \[3\], the run has 1"),
        # What a parser sees first is not what holds: the later definition wins when the module runs.
        ("return 0  # Skill", "return 0\n\n\ndef task_0_network_number():\n    return 1", "task_0_network_number"),
    ],
)
def test_the_module_must_name_the_experts_of_its_run(tmp_path, old, new, told):
    run = prepare(tmp_path, NEVER)
    run.module_path.write_text(run.module_path.read_text().replace(old, new))
    status, errors = finish(run)
    assert status == 1 and re.search(told, errors), errors


def test_what_a_module_says_when_it_runs_is_compared_with_its_text(tmp_path, monkeypatch):
    run = prepare(tmp_path, NEVER)
    monkeypatch.setattr(run_setup, "executed", lambda module: executed(module)._replace(task_to_skill_index=[1]))
    status, errors = finish(run)
    assert status == 1 and "name experts [1] when run, and [0] as text" in errors


@pytest.mark.slow
def test_the_command_says_what_is_wrong_in_one_line(tmp_path):
    argv = [sys.executable, "-m", "policysmith.skills.training", str(tmp_path)]
    found = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout) == (78, ""), "78: to try again would be in vain"
    assert found.stderr.strip() == f"{tmp_path}: is no training run: it holds no remap.json"
