"""The example of three skills, from the command line, through a killed worker and a killed scheduler."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from policysmith.skills import SkillLibrary

FILE = Path(__file__).parents[2] / "examples" / "doorkey" / "skills.yaml"
SKILLS = ["Pick_Up_Key", "Open_Door", "Reach_Goal"]


def command(*words):
    return [sys.executable, "-m", "policysmith", "skills", *map(str, words)]


def wait_for(find, process):
    deadline = time.monotonic() + 300
    while (found := find()) is None:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    return found


def worker_of(library, skill):
    """The worker that trains a skill and has begun to learn."""
    for folder in (library / "training_runs").glob(f"skill_*_{skill}"):
        if (folder / "progress.jsonl").exists() and (folder / "worker.json").exists():
            return folder, json.loads((folder / "worker.json").read_text())["pid"]
    return None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_skills_are_learned_though_worker_and_scheduler_are_killed(tmp_path):
    pytest.importorskip("minigrid")
    library, words = tmp_path / "library", command("train", FILE, "--library", tmp_path / "library")
    scheduler = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, worker = wait_for(lambda: worker_of(library, "Open_Door"), scheduler)
    os.kill(worker, signal.SIGKILL)
    _, worker = wait_for(lambda: worker_of(library, "Reach_Goal"), scheduler)  # the retry has made Open_Door
    scheduler.kill()
    scheduler.wait()
    os.kill(worker, 0)  # the worker lives on, and is taken up
    ended = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    place = SkillLibrary(library, create=False)
    assert [skill.name for skill in place.skills()] == SKILLS and not list((library / "training_runs").glob("skill_*"))
    heads = {name: place.version(name) for name in SKILLS}
    assert heads["Reach_Goal"].scores["Reach_Goal"] >= 0.9
    for name in SKILLS:  # dependencies were frozen: each expert was trained once, by its own run
        assert len(place.versions(name)) == 1 and heads[name].frames > 0
    judged = subprocess.run(
        command("eval", FILE, "Reach_Goal", "--library", library, "--episodes", 200, "--json"),
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert json.loads(judged.stdout)["success_rate"] >= 0.9
    graph = subprocess.run(
        command("graph", "--library", library), capture_output=True, text=True, timeout=120, check=True
    )
    assert all(name in graph.stdout for name in SKILLS)
