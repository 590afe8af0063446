"""`policysmith tune`: what a search prints, and how it goes on."""

from pathlib import Path

import pytest
import yaml

from policysmith.cli.tune import _tell
from policysmith.tuning import Trial, TuneResult


@pytest.fixture
def searching(tiny):
    """The tiny file with two spaces."""
    text = tiny.read_text().replace("hidden: [8]", "hidden: {tune: [[4], [8]]}")
    tiny.write_text(text.replace("minibatches: 2", "minibatches: 2, loggers: [], epochs: {tune: {low: 1, high: 2}}"))
    return tiny


def test_a_search_prints_its_trials_and_the_best_configuration(run, searching, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    result = run("tune", searching, "--trials", 1)
    assert result.exit_code == 0, result.stderr
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[0].split() == ["trial", "return", "hidden", "epochs", "time"]
    assert lines[1].split()[0] == "0" and "[" in lines[1]
    assert "trials    1 complete, 0 pruned, 0 failed" in lines
    assert "config    runs/tune-tiny/best.yaml" in lines and "history   runs/tune-tiny/history.png" in lines
    assert "policy    runs/tune-tiny/trials/0000/policy" in lines
    assert lines[-1] == "next      policysmith train runs/tune-tiny/best.yaml"
    assert result.stderr.startswith("trial 0: complete ")
    assert yaml.safe_load(Path("runs/tune-tiny/best.yaml").read_text())["training"]["epochs"] in (1, 2)
    again = run("tune", searching, "--trials", 1, "--quiet")
    assert (again.exit_code, again.stdout.split("/")[-3:]) == (0, ["runs", "tune-tiny", "best.yaml\n"])


def test_check_and_train_name_the_command(run, searching):
    for words in (("check", searching), ("train", searching)):
        result = run(*words)
        assert result.exit_code == 1
        assert "model.hidden: a search space stands here" in result.stdout + result.stderr
        assert "`policysmith tune`" in result.stdout + result.stderr


def test_every_wrong_choice_is_a_line(run, searching):
    result = run("tune", searching, "training.gamma={tune: [0.9, 2.0]}", "model.activation={tune: [relu, rely]}")
    assert result.exit_code == 1 and result.stdout == ""
    assert "training.gamma.tune.1: must be ≤ 1, found 2" in result.stderr
    assert "model.activation.tune.1: unknown activation 'rely' (did you mean 'relu'?)" in result.stderr


@pytest.mark.parametrize("words", [("tune",), ("tune", "x.yaml", "--trials", 0), ("tune", "x.yaml", "--workers", 0)])
def test_wrong_usage_ends_with_2(run, words):
    assert run(*words).exit_code == 2


def test_a_trial_that_fails_says_why_at_once(capsys):
    _tell([Trial(0, "failed", {}, None, 1.0, "ValueError: no\nmore"), Trial(2, "pruned", {}, None)])
    assert capsys.readouterr().err == "trial 0: failed ValueError: no\ntrial 2: pruned –\n"


def test_failed_trials_say_why_and_nothing_is_the_best_of_none(run, monkeypatch, tmp_path):
    trials = [Trial(0, "failed", {}, None, 1.0, "ValueError: no\nmore"), Trial(1, "pruned", {}, 0.5, None)]
    result = TuneResult(trials, None, (), "return", "maximize", False, tmp_path, interrupted=True)
    monkeypatch.setattr("policysmith.tuning.tune", lambda *_, **__: result)
    told = run("tune", "x.yaml")
    assert told.exit_code == 0, "it was stopped, and did not fail"
    lines = [line.rstrip() for line in told.stdout.splitlines()]
    assert lines[1].split() == ["0", "–", "1.0", "s", "failed:", "ValueError:", "no"]
    assert lines[2].split() == ["1", "0.5", "pruned"]
    assert lines[3:] == [
        "",
        "stopped   before the end; run again to go on",
        "trials    0 complete, 1 pruned, 1 failed",
        "best      none: no trial was played to its end",
    ]
    ended = TuneResult(trials, None, (), "return", "maximize", False, tmp_path)
    monkeypatch.setattr("policysmith.tuning.tune", lambda *_, **__: ended)
    assert run("tune", "x.yaml").exit_code == 1
