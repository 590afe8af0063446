"""Many skills: in the right order, side by side, and through whatever kills workers or the scheduler."""

import os
import signal
import threading
from pathlib import Path

import pytest

from policysmith.errors import SkillError
from policysmith.skills import SkillLibrary
from policysmith.skills.modules import inject

from .scheduling import World, until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="workers are watched through /proc")


def phases(report):
    return {name: str(status.phase) for name, status in report.skills.items()}


def started(world):
    return [event["skill"] for event in world.events("start")]


def test_skills_are_trained_after_those_that_they_need(tmp_path):
    world = World(tmp_path, {"c": {"plan": ["a", "b", "c"]}, "b": {"after": ["a"]}, "a": {}}, parallel=3)
    report = world.train()
    assert report.succeeded and not report.interrupted
    assert started(world) == ["a", "b", "c"]
    assert world.heads() == {"a": 10, "b": 10, "c": 10}
    assert not list((tmp_path / "library" / "training_runs").iterdir())


def test_the_scheduler_runs_no_skill_and_looks_through_the_library_once(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a skill's code was to be run")

    monkeypatch.setattr(inject, "SkillProcess", refuse)
    looks, completed = [], SkillLibrary.completed
    monkeypatch.setattr(
        SkillLibrary, "completed", lambda library, *names: looks.append(names) or completed(library, *names)
    )
    world = World(tmp_path, {"a": {}, "b": {"plan": ["a", "b"]}, "c": {"plan": ["a", "c"], "train": ["a"]}})
    assert world.train().succeeded
    assert looks == [()]


def test_two_run_at_the_same_time_and_no_more(tmp_path):
    skills = {name: {"training": {"pace": 0.03}} for name in "abcd"}
    world = World(tmp_path, skills, parallel=2)
    assert world.train().succeeded
    ordered = sorted(world.events(), key=lambda event: event["at"])
    running, most = 0, 0
    for event in ordered:
        running += {"start": 1, "end": -1}[event["event"]]
        most = max(most, running)
    assert most == 2


def test_a_killed_worker_goes_on_from_its_checkpoint(tmp_path):
    world = World(tmp_path, {"a": {"training": {"kill_at": 8}}, "b": {"plan": ["a", "b"]}}, parallel=2)
    report = world.train()
    assert report.succeeded and report.skills["a"].attempt == 2
    assert [event["step"] for event in world.events("start", "a")] == [0, 5]
    assert started(world) == ["a", "a", "b"] and world.heads() == {"a": 10, "b": 10}


def test_a_failed_skill_blocks_what_needs_it_and_nothing_else(tmp_path):
    skills = {"a": {"training": {"fail_at": 2}}, "b": {"plan": ["a", "b"]}, "c": {"after": ["b"]}, "d": {}}
    world = World(tmp_path, skills, parallel=1, retries=1)
    report = world.train()
    assert phases(report) == {"a": "failed", "b": "blocked", "c": "blocked", "d": "done"} and not report.succeeded
    assert report.skills["a"].reason == "its worker ended with status 3: the reward is not a number"
    assert report.skills["c"].reason == "needs 'a', which failed"
    assert started(world) == ["a", "d", "a"]


@pytest.mark.slow
def test_the_next_run_goes_on_with_what_failed(tmp_path):
    world = World(tmp_path, {"a": {"training": {"fail_at": 7}}, "b": {}}, retries=0)
    assert phases(world.train()) == {"a": "failed", "b": "done"}
    world.data["skills"]["a"]["training"] = {}
    world.write()
    report = world.train()
    assert report.succeeded and report.skills["a"].attempt == 2
    assert [event["step"] for event in world.events("start", "a")] == [0, 5]
    assert len(world.events("start", "b")) == 1


@pytest.mark.slow
def test_what_is_trained_is_not_trained_again(tmp_path):
    world = World(tmp_path, {"a": {}, "b": {"plan": ["a", "b"]}})
    assert world.train().succeeded
    assert phases(world.train()) == {"a": "done", "b": "done"} and started(world) == ["a", "b"]


@pytest.mark.slow
def test_only_these_and_what_they_need_are_trained(tmp_path):
    world = World(tmp_path, {"a": {}, "b": {"plan": ["a", "b"]}, "c": {}})
    assert phases(world.train(only=["b"])) == {"a": "done", "b": "done"}
    with pytest.raises(SkillError, match=r"there is no skill 'bb' \(did you mean 'b'\?\): a, b, c"):
        world.train(only=["bb"])


@pytest.mark.slow
def test_a_spent_budget_ends_a_skill_and_is_told(tmp_path):
    world = World(tmp_path, {"a": {"steps": 4, "training": {"poor": True}}, "b": {"plan": ["a", "b"]}})
    report = world.train()
    assert report.succeeded and report.skills["a"].result.status == "budget" and report.skills["a"].result.steps == 4
    assert world.heads()["a"] == 4


def test_a_worker_that_holds_too_much_memory_is_ended(tmp_path):
    skills = {"a": {"training": {"hold": 300, "pace": 1.0}, "resources": {"memory": "150MB"}}, "b": {}}
    report = World(tmp_path, skills, retries=0, memory="1GB").train()
    assert phases(report) == {"a": "failed", "b": "done"}
    assert report.skills["a"].reason.endswith("MB of memory, allowed are 150 MB")


@pytest.mark.slow
def test_a_more_important_skill_is_made_room_for(tmp_path):
    """`low` runs while `gate` is trained; when `high` becomes ready, it saves, and goes on from there later."""
    skills = {
        "low": {"training": {"pace": 0.05, "total_steps": 30}},
        "gate": {"training": {"pace": 0.01}},
        "high": {"after": ["gate"], "priority": 5},
        "high2": {"after": ["gate"], "priority": 5, "training": {"pace": 0.01}},
    }
    world = World(tmp_path, skills, parallel=2)
    report = world.train()
    assert report.succeeded and report.skills["low"].failures == 0
    (saved,) = world.events("saved")
    again = world.events("start", "low")[1]
    assert saved["skill"] == "low" and again["step"] == saved["step"] and again["at"] > saved["at"]
    assert world.heads()["low"] == 30


def test_ctrl_c_lets_workers_save_and_a_second_run_goes_on(tmp_path):
    world = World(tmp_path, {"a": {"training": {"pace": 0.05, "total_steps": 30}}, "b": {"after": ["a"]}})
    stop = threading.Event()
    threading.Thread(target=lambda: (until(lambda: world.events("start")), stop.set())).start()
    report = world.train(stop=stop)
    assert phases(report) == {"a": "stopped", "b": "waiting"} and report.interrupted and not report.succeeded
    (saved,) = world.events("saved", "a")
    assert world.train("skills.a.training.pace=0").succeeded
    assert world.events("start", "a")[1]["step"] == saved["step"]


@pytest.fixture
def child():
    """Kills what `World.in_child` started, at the latest at the end of the test."""
    pids = []

    def kill(pid):
        if pid in pids:
            pids.remove(pid)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    yield pids, kill
    for pid in list(pids):
        kill(pid)


def test_a_killed_scheduler_leaves_workers_that_the_next_one_takes_over(tmp_path, child):
    pids, kill = child
    slow = {"pace": 0.05, "total_steps": 20}
    world = World(tmp_path, {"a": {"training": slow}, "b": {}, "c": {"plan": ["a", "c"]}}, parallel=2)
    pids.append(world.in_child())
    until(lambda: world.events("start", "a") and world.heads().get("b"))
    kill(pids[0])
    assert not world.events("end", "a")
    report = world.train()
    assert report.succeeded and report.skills["a"].attempt == 1
    assert sorted(started(world)) == ["a", "b", "c"] and world.heads() == {"a": 20, "b": 10, "c": 10}


@pytest.mark.slow
def test_the_experts_of_a_worker_that_ended_while_nobody_watched_are_stored(tmp_path, child):
    pids, kill = child
    world = World(tmp_path, {"a": {"training": {"pace": 0.05}}, "b": {"plan": ["a", "b"]}})
    pids.append(world.in_child())
    until(lambda: world.events("start", "a"))
    kill(pids[0])
    until(lambda: (world.run_folder("a") / "result.json").exists())
    assert world.heads() == {}
    report = world.train()
    assert report.succeeded and report.skills["a"].result.steps == 10 and started(world) == ["a", "b"]


@pytest.mark.slow
def test_workers_killed_with_their_scheduler_go_on_from_their_checkpoints(tmp_path, child):
    pids, kill = child
    world = World(tmp_path, {"a": {"training": {"pace": 0.03, "total_steps": 20}}})
    pids.append(world.in_child())
    until(lambda: world.events("start") and list(world.run_folder("a").glob("*_policies/5")))
    kill(pids[0])
    os.kill(world.events("start")[0]["pid"], signal.SIGKILL)
    report = world.train()
    assert report.succeeded and report.skills["a"].attempt == 2 and world.events("start")[1]["step"] >= 5


@pytest.mark.slow
def test_one_scheduler_at_a_time_works_on_a_library(tmp_path, child):
    pids, _ = child
    world = World(tmp_path, {"a": {"training": {"pace": 0.05}}})
    pids.append(world.in_child())
    until(lambda: world.events("start"))
    with pytest.raises(SkillError, match="library: another scheduler is training skills here"):
        world.train()
    os.waitpid(pids.pop(), 0)
    assert world.heads() == {"a": 10}


@pytest.mark.slow
def test_a_run_whose_plan_has_changed_is_not_gone_on_with(tmp_path):
    world = World(tmp_path, {"a": {}, "b": {"training": {"fail_at": 2}}}, retries=0)
    world.train()
    world.data["skills"]["b"] = {"code": "b.py", "plan": ["a", "b"]}
    world.write()
    report = world.train()
    assert phases(report)["b"] == "failed"
    assert "was begun with the dependencies [], and the file has ['a'] now" in report.skills["b"].reason


@pytest.mark.slow
def test_a_run_that_goes_on_runs_the_code_as_it_is_now(tmp_path):
    """Somebody has mended it, after it made the run fail."""
    world = World(tmp_path, {"a": {"training": {"fail_at": 7}}}, retries=0)
    world.train()
    file = tmp_path / "a.py"
    file.write_text(file.read_text().replace("return x > n", "return x > n + 41"))
    (module,) = world.run_folder("a").glob("*.py")
    assert "41" not in module.read_text()
    world.train()
    text = module.read_text()
    assert "41" in text and "GLOBAL_TO_LOCAL = {0: 0}" in text


@pytest.mark.slow
def test_a_run_whose_learners_have_changed_is_not_gone_on_with(tmp_path):
    world = World(tmp_path, {"a": {}, "b": {"plan": ["a", "b"], "training": {"fail_at": 2}}}, retries=0)
    world.train()
    world.data["skills"]["b"]["train"] = ["a"]
    world.write()
    reason = world.train().skills["b"].reason
    assert "was begun with the dependencies that learn [], and the file has ['a'] now" in reason


@pytest.mark.slow
def test_settings_that_changed_hold_for_a_run_that_goes_on(tmp_path):
    world = World(tmp_path, {"a": {"training": {"fail_at": 7}}}, retries=0)
    world.train()
    assert world.train("skills.a.training.fail_at=null", "skills.a.steps=25").succeeded
    assert world.heads() == {"a": 25}
