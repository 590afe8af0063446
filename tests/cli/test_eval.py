"""`policysmith eval`: the numbers of a stored policy."""

import json
from pathlib import Path

import pytest

from policysmith.errors import CheckpointError
from policysmith.training.evaluation import EvaluationResult


@pytest.fixture
def calls(monkeypatch):
    seen = []

    def evaluate(policy, **options):
        print("chatter of an environment")
        seen.append((policy, options))
        return EvaluationResult((1.0, 2.0, 3.0), (4, 4, 4))

    monkeypatch.setattr("policysmith.api.evaluate", evaluate)
    return seen


def test_mean_and_deviation_are_printed(run, calls):
    result = run("eval", "run")
    assert (result.exit_code, result.stdout) == (0, "return    2.00 ± 0.82 over 3 episodes\n")
    assert calls == [(Path("run"), {"episodes": None, "deterministic": None, "seed": None, "video": None})]


def test_options_reach_the_api(run, calls):
    result = run("eval", "run", "--episodes", 3, "--sampled", "--seed", 7, "--video", "a.mp4")
    assert calls[0][1] == {"episodes": 3, "deterministic": False, "seed": 7, "video": Path("a.mp4")}
    assert result.stdout.endswith("video     a.mp4\n")
    run("eval", "run", "--deterministic")
    assert calls[1][1]["deterministic"] is True


def test_json_is_one_object_and_nothing_else(run, calls):
    result = run("eval", "run", "--json")
    assert json.loads(result.stdout) == {"mean": 2.0, "std": pytest.approx(0.8165, abs=1e-4), "episodes": 3}
    assert result.stderr == "chatter of an environment\n"


def test_json_knows_no_nan(run, monkeypatch):
    monkeypatch.setattr("policysmith.api.evaluate", lambda *_, **__: EvaluationResult((float("inf"),), (1,)))
    with pytest.warns(RuntimeWarning):
        assert json.loads(run("eval", "run", "--json").stdout) == {"mean": None, "std": None, "episodes": 1}


def test_what_is_no_artifact_is_named(run, monkeypatch):
    def fail(*_, **__):
        raise CheckpointError("nowhere: there is no such directory")

    monkeypatch.setattr("policysmith.api.evaluate", fail)
    result = run("eval", "nowhere")
    assert (result.exit_code, result.stderr) == (1, "error: nowhere: there is no such directory\n")


@pytest.mark.parametrize("words", [("--episodes", 0), ("--seed", -1), ("--episodes", "many")])
def test_numbers_are_checked_before_anything_runs(run, calls, words):
    assert run("eval", "run", *words).exit_code == 2
    assert calls == []
