"""`policysmith skills train`: what it says, what it ends with, and what is seen meanwhile."""

import os
import pty
import re
import sys
import threading

import pytest
import typer

from policysmith.skills.runs.run_files import Result, RunProgress
from policysmith.skills.scheduling import skills_session
from policysmith.skills.scheduling.display import Display, row_of, shown_skills
from policysmith.skills.scheduling.status import Phase, SkillStatus
from tests.cli.conftest import _runner

from . import scheduling
from .scheduling import World


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The command, with fake workers and their types."""
    from policysmith.cli import app
    from policysmith.skills.scheduling import skills_file

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(skills_file, "_registry", lambda: scheduling.REGISTRY)
    real = skills_session.train_skills
    monkeypatch.setattr(skills_session, "train_skills", lambda file, **o: real(file, command=scheduling.command, **o))
    return lambda *words: _runner().invoke(app, ["skills", "train", *map(str, words)], prog_name="policysmith")


def test_the_command_and_its_options_are_frozen(run):
    """A change here is a line in the CHANGELOG."""
    from policysmith.cli import app

    command = typer.main.get_command(app).commands["skills"].commands["train"]
    names = [p.metavar if p.param_type_name == "argument" else p.opts[0] for p in command.params]
    own = ["FILE", "OVERRIDE", "--library", "--parallel", "--only", "--quiet"]
    assert names == [*own, "--plugin", "--debug"]
    text = run("--help").stdout
    assert "\nExamples:\n  policysmith skills train skills.yaml" in text
    assert all(parameter.help for parameter in command.params) and all(len(line) <= 80 for line in text.splitlines())


def test_trained_skills_are_summed_up(run, tmp_path):
    World(tmp_path, {"a": {}, "b": {"plan": ["a", "b"], "training": {"poor": True}}})
    result = run("skills.yaml")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == (
        "trained   a  10 steps in 0.1 s, success 97%\n"
        "          b  10 steps in 0.1 s, success 97%; its budget was spent\n"
        "library   library: 2 of 2 skills trained\n"
    )
    walls, *lines = result.stderr.splitlines()
    assert re.match("walls     .*limits: ", walls)
    assert lines[0] == "b: waiting on a" or lines[0].startswith("a: running")
    assert [line for line in lines if line.startswith("b: done")]
    assert run("skills.yaml").stdout.splitlines()[0] == "trained   a"


def test_what_failed_and_what_it_blocks_ends_with_1(run, tmp_path):
    World(tmp_path, {"a": {}, "b": {"training": {"fail_at": 2}}, "c": {"plan": ["b", "c"]}}, retries=0)
    result = run("skills.yaml", "--parallel", 2, "--library", "other", "seed=3", "--quiet")
    assert result.exit_code == 1 and result.stderr == ""
    assert result.stdout == (
        "trained   a  10 steps in 0.1 s, success 97%\n"
        "failed    b  its worker ended with status 3: the reward is not a number\n"
        "blocked   c  needs 'b', which failed\n"
        "library   other: 1 of 3 skills trained\n"
        "\n"
        "go on     policysmith skills train skills.yaml --library other --parallel 2 seed=3\n"
    )


def test_a_wrong_file_is_told_before_anything_is_trained(run, tmp_path):
    World(tmp_path, {"a": {"plan": ["b", "a"]}, "c": {"prority": 3}})
    result = run("skills.yaml")
    assert result.exit_code == 1 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 2 and "(did you mean 'priority'?)" in result.stderr
    assert not (tmp_path / "library").exists()
    assert "there is no skill 'd'" in run("skills.yaml", "~skills.c.prority", "skills.a.plan=[a]", "--only", "d").stderr
    assert run().exit_code == run("skills.yaml", "--parallel", "0").exit_code == 2


def test_on_a_terminal_a_table_shows_every_skill(tmp_path, monkeypatch):
    world = World(tmp_path, {"a": {"training": {"pace": 0.02}}, "b": {"plan": ["a", "b"]}})
    read, write = pty.openpty()
    seen = []

    def collect():
        try:
            while data := os.read(read, 4096):
                seen.append(data.decode(errors="replace"))
        except OSError:
            return

    reader = threading.Thread(target=collect, daemon=True)
    reader.start()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with os.fdopen(write, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        world.train(display=Display())
        monkeypatch.undo()
    reader.join(5.0)
    os.close(read)
    text = "".join(seen)
    assert "running" in text and "waiting on a" in text and "expert" in text and "97%" in text and "done" in text


class TestRows:
    def row(self, progress=None, missing=(), **said):
        return row_of(SkillStatus("a", **said), progress or RunProgress(), missing, now=1000.0)

    def test_a_running_skill_shows_how_it_goes(self):
        row = self.row(RunProgress(12_000, 0.625, 3.14159), phase=Phase.RUNNING, expert=7, attempt=2, since=275.0)
        assert row == ("a", "running", "7", "12,000", "62%", "3.14", "12:05", "2")

    @pytest.mark.parametrize(
        ("said", "state"),
        [
            ({"phase": Phase.WAITING}, "waiting on b, c"),
            ({"phase": Phase.READY}, "waiting for room"),
            ({"phase": Phase.RETRYING, "retry_at": 1004.2, "reason": "gone\nmore"}, "retry in 4 s: gone"),
            ({"phase": Phase.FAILED, "reason": "gone"}, "failed: gone"),
            ({"phase": Phase.BLOCKED, "reason": "needs 'b', which failed"}, "blocked: needs 'b', which failed"),
            ({"phase": Phase.DONE, "result": Result("solved")}, "done"),
            ({"phase": Phase.DONE, "result": Result("budget")}, "done, budget spent"),
            ({"phase": Phase.STOPPED}, "stopped, can go on"),
        ],
    )
    def test_its_state_is_said(self, said, state):
        assert self.row(missing=["b", "c"], **said)[1] == state

    def test_of_many_skills_those_are_shown_that_something_happens_to(self):
        skills = {f"s{i}": SkillStatus(f"s{i}", Phase.DONE if i < 500 else Phase.WAITING) for i in range(1000)}
        skills["s500"].phase, skills["s7"].phase = Phase.RUNNING, Phase.FAILED
        assert [status.name for status in shown_skills(skills)] == ["s7", "s500"]
        few = dict(list(skills.items())[:40])
        assert list(shown_skills(few)) == list(few.values())
