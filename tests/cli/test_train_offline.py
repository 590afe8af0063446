"""`policysmith record` and `policysmith train-offline`: from a stored policy to its clone."""

import json
import shlex
from pathlib import Path

import pytest

import policysmith
from policysmith import api
from policysmith.training.run.results import OfflineResult


@pytest.fixture
def stored():
    """An untrained policy in the working directory."""
    config = {"environment": {"id": "policysmith/Countdown-v0"}, "model": "mlp", "evaluation": {"episodes": 2}}
    policysmith.save(policysmith.build(config), "policy")
    clone = config | {"training": {"type": "offline", "epochs": 2, "dataset": {"type": "memmap", "path": "data"}}}
    Path("clone.json").write_text(json.dumps(clone))
    return "policy"


def test_a_policy_is_recorded_cloned_and_the_run_is_prolonged(run, stored):
    recorded = run("record", stored, "--episodes", 6, "--output", "data")
    assert recorded.stdout == "recorded  6 episodes, 18 steps\nreturn    3.00 ± 0.00\ndataset   data\n"
    result = run("train-offline", "clone.json", "--output", "runs/clone")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("updates   2 in all, ") and lines[1].startswith("loss      0.")
    assert "return    3.00 ± 0.00 over 2 episodes" in lines and "policy    runs/clone" in lines
    assert lines[-2:] == ["next      policysmith show runs/clone", "          policysmith eval runs/clone"]
    again = run("train-offline", "--resume", "runs/clone", "training.epochs=3", "--quiet")
    assert (again.exit_code, again.stdout) == (0, "runs/clone\n")
    assert run("train-offline", "clone.json", "--output", "runs/clone").exit_code == 1


def test_recording_tells_numbers_to_scripts(run, stored):
    words = ["record", stored, "--episodes", 3, "--output", "data", "--random-share", 0.5, "--sampled", "--seed", 4]
    told = json.loads(run(*words, "--json").stdout)
    assert told == {"dataset": "data", "episodes": 3, "steps": 9, "mean": 3.0, "std": 0.0}
    origin = json.loads(Path("data/dataset.json").read_text())["origin"]
    assert (origin["random_share"], origin["deterministic"], origin["seed"]) == (0.5, False, 4)


def test_recorded_data_is_not_written_over(run, stored):
    run("record", stored, "--episodes", 1, "--output", "data")
    result = run("record", stored, "--episodes", 1, "--output", "data")
    assert result.exit_code == 1 and "data: holds something already" in result.stderr


@pytest.mark.parametrize("words", [("record", "policy"), ("record", "policy", "--output", "x", "--episodes", 0)])
def test_wrong_usage_ends_with_2(run, words):
    assert run(*words).exit_code == 2


def test_an_interrupted_run_says_how_to_resume(run, monkeypatch):
    def train(config, overrides, **options):
        return OfflineResult(None, 7, 1.5, {}, {"training/loss": 0.5}, options["output"], interrupted=True)

    monkeypatch.setattr(api, "train_offline", train)
    result = run("train-offline", "clone.yaml")
    assert result.stdout == (
        "stopped   before the end; what was learned is saved\nupdates   7 in all, 1.5 s in this run\n"
        "loss      0.5 (training)\npolicy    runs/clone\n\n"
        "resume    policysmith train-offline --resume runs/clone\n"
    )
    assert shlex.split(result.stdout.splitlines()[-1])[1:] == [
        "policysmith", "train-offline", "--resume", "runs/clone",
    ]  # fmt: skip
