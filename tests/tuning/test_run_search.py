"""Searches: that trials are played, noted and compared, and that no end of the process loses any."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import policysmith
from policysmith import api
from policysmith.config.open_document import open_document
from policysmith.errors import CheckpointError, ConfigError, MissingExtraError, PolicysmithError
from policysmith.tuning import Trial, trial_workers, tune
from policysmith.tuning.study import held
from policysmith.tuning.trial_run import Stopped

ROOT = Path(__file__).parents[2]
CONFIG = {
    "environment": {"id": "CartPole-v1", "num_envs": 2, "options": {"sutton_barto_reward": {"tune": [True, False]}}},
    "model": {"type": "mlp", "hidden": {"tune": [[4], [8]]}},
    "training": {
        "type": "ppo",
        "total_steps": 128,
        "rollout_steps": 32,
        "minibatches": 2,
        "loggers": [],
        "learning_rate": {"tune": {"low": 1e-4, "high": 1e-2, "log": True}},
    },
    "evaluation": {"episodes": 2},
}


def with_play(monkeypatch, play):
    """Trials without training: `play(values, tell)` gives the metric."""

    def fake(search, values, folder, tell, ends):
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("format: 1\n")
        (folder / "policy").mkdir()
        return play(values, tell)

    monkeypatch.setattr(trial_workers, "play", fake)


def test_each_trial_is_told_once_whichever_ends_first(monkeypatch):
    """Trial 0 was there before; of two workers' trials the third ends first, then two at once."""
    ended = [[0], [0, 3], [0, 3], [0, 1, 2, 3]]
    answers = iter([[Trial(number, "complete", {}, 1.0) for number in numbers] for numbers in ended])
    monkeypatch.setattr(trial_workers, "trials_of", lambda study, spaces: next(answers))
    told = []
    news = trial_workers._News(SimpleNamespace(spaces=()), None, lambda trials: told.append([t.number for t in trials]))
    for _ in range(3):
        news.tell()
    assert told == [[3], [1, 2]]


def test_a_search_trains_keeps_the_best_and_goes_on(tmp_path):
    first = tune(CONFIG, trials=1, output=tmp_path / "search", sampler="random")
    whole = tune(CONFIG, trials=2, output=tmp_path / "search", sampler="random")
    assert [trial.number for trial in whole.trials] == [0, 1] and whole.trials[:1] == first.trials
    assert (whole.metric, whole.direction) == ("return", "maximize")
    best = max(whole.trials, key=lambda trial: trial.value)
    assert whole.best == best and whole.artifact == tmp_path / "search" / "trials" / f"{best.number:04}" / "policy"
    assert [p.parent.name for p in (tmp_path / "search").rglob("policy")] == [f"{best.number:04}"]
    text = whole.files["config"].read_text()
    assert text.startswith(f"# Trial {best.number} of 2: return ")
    config = yaml.safe_load(text)
    assert config["model"]["hidden"] == best.values["model.hidden"]
    assert config["training"]["learning_rate"]["value"] == pytest.approx(best.values["training.learning_rate"])
    assert api.check(whole.files["config"]) == []
    assert policysmith.load(whole.artifact).config == policysmith.build(whole.files["config"]).config
    again = api.train(config, progress=False, evaluate=False)
    assert np.mean([value for _, value in again.returns][-100:]) == pytest.approx(best.value)
    assert whole.files["history"].stat().st_size > 5_000


@pytest.mark.parametrize(("pruner", "ends"), [("median", 4), pytest.param("none", 5, marks=pytest.mark.slow)])
def test_trials_that_lag_behind_are_given_up(tmp_path, monkeypatch, pruner, ends):
    """Each trial is worse than those before: to the fifth, half of them are better."""
    begun, stages = [], []

    def play(values, tell):
        begun.append(values)
        for stage in range(1, 5):
            stages.append(stage)
            tell(-float(len(begun)), stage)
        return -float(len(begun))

    with_play(monkeypatch, play)
    found = tune(CONFIG, trials=5, output=tmp_path, pruner=pruner)
    assert [trial.state for trial in found.trials] == ["complete"] * ends + ["pruned"] * (5 - ends)
    assert len(stages) == 4 * ends + 2 * (5 - ends), "the first stage is waited for"
    assert found.best.number == 0


@pytest.mark.slow
def test_hyperband_gives_up_trials_too(tmp_path, monkeypatch):
    stages = []

    def play(values, tell):
        for stage in range(1, 21):
            stages.append(stage)
            tell(values["training.learning_rate"], stage)
        return values["training.learning_rate"]

    with_play(monkeypatch, play)
    found = tune(CONFIG, trials=12, output=tmp_path, pruner="hyperband")
    states = [trial.state for trial in found.trials]
    assert set(states) == {"complete", "pruned"} and len(stages) < 12 * 20


def test_training_tells_its_returns_on_the_way(tmp_path):
    """A watcher that gives a trial up sees it after some of its steps, not at the end."""
    from policysmith.tuning import search as searching
    from policysmith.tuning.trial_run import play

    class GiveUp(Exception):
        pass

    told = []

    def tell(worth, stage):
        told.append((worth, stage))
        if stage >= 10:
            raise GiveUp

    document = open_document(CONFIG)
    made = searching.make_search(
        document, None, searching.default_registry,
        metric=None, sampler="tpe", pruner="none", seed=0, output=tmp_path,
    )  # fmt: skip
    values = {space.name: space.options()[0][1] for space in made.spaces}
    with pytest.raises(GiveUp):
        play(made, values, tmp_path / "trial", tell, bool)
    assert [stage for _, stage in told] == list(range(told[0][1], 11)) and all(worth < 0 for worth, _ in told)


def test_a_trial_that_fails_is_noted_with_its_reason_and_is_not_fatal(tmp_path, monkeypatch):
    def play(values, tell):
        if values["model.hidden"] == [4]:
            raise ValueError("too small")
        return 1.0

    with_play(monkeypatch, play)
    found = tune(CONFIG, trials=4, output=tmp_path, sampler="random")
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert 0 < len(failed) < 4 and {trial.reason for trial in failed} == {"ValueError: too small"}
    assert found.best.state == "complete"


@pytest.mark.parametrize("error", [pytest.param(Stopped, marks=pytest.mark.slow), KeyboardInterrupt])
def test_what_is_interrupted_is_played_again_and_counts_once(tmp_path, monkeypatch, error):
    seen = []

    def play(values, tell):
        seen.append(values)
        if len(seen) == 2:
            raise error
        return float(len(seen))

    with_play(monkeypatch, play)
    stopped = tune(CONFIG, trials=3, output=tmp_path)
    assert stopped.interrupted and len(stopped.trials) == 1
    whole = tune(CONFIG, trials=3, output=tmp_path)
    assert not whole.interrupted and len(whole.trials) == 3
    assert seen[2] == seen[1], "the values of the trial that was interrupted come next"


@pytest.mark.slow
def test_the_same_seed_draws_the_same_trials(tmp_path, monkeypatch):
    with_play(monkeypatch, lambda values, tell: values["training.learning_rate"])
    runs = [
        [trial.values for trial in tune(CONFIG, trials=1, output=tmp_path / name, seed=seed).trials]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert runs[0] == runs[1] != runs[2]


def test_the_smaller_loss_is_better_offline(tmp_path, monkeypatch):
    from policysmith.training.datasets import write_episodes
    from tests.training.offline_data import walk

    write_episodes(tmp_path / "data", walk())
    training = {"type": "offline", "updates": 20, "batch_size": 16, "loggers": []}
    config = {
        "seed": 3,
        "model": {"type": "mlp", "hidden": [8]},
        "training": training | {"learning_rate": {"tune": [1e-6, 1e-2]}, "dataset": {"type": "memmap", "path": "data"}},
    }
    monkeypatch.chdir(tmp_path)
    found = tune(config, trials=2, output="search", sampler="random", seed=5)
    assert (found.metric, found.direction) == ("validation-loss", "minimize")
    assert {trial.values["training.learning_rate"] for trial in found.trials} == {1e-6, 1e-2}
    assert found.best.values == {"training.learning_rate": 1e-2}
    monkeypatch.chdir("/")
    again = api.train_offline(found.files["config"], progress=False)
    assert again.losses["validation"][-1][1] == pytest.approx(found.best.value)


def test_every_choice_is_checked_before_the_first_trial(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "environment: {id: CartPole-v1}\nmodel:\n  type: mlp\n  hidden: {tune: [[8], [8, a], 16]}\n"
        "training:\n  type: ppo\n  epochs: {tune: {low: 0, high: 4}}\n  rollout_steps: {tune: [32, 33]}\n"
        "  sequence_length: {tune: [16, 32]}\n  gamma: {tune: {low: 0.9, high: 1.5}}\n"
    )
    with pytest.raises(ConfigError) as refused:
        tune(file, trials=1, output=tmp_path / "search")
    told = [(problem.path, problem.message, problem.place) for problem in refused.value.problems]
    assert told == [
        ("model.hidden.tune.1.1", "expected an integer, found 'a'", f"{file}:4:28"),
        ("model.hidden.tune.2", "expected a list, found 16", f"{file}:4:32"),
        ("training.epochs.tune.low", "must be > 0, found 0", f"{file}:7:24"),
        ("training.gamma.tune.high", "must be ≤ 1, found 1.5", f"{file}:10:34"),
    ]
    assert not (tmp_path / "search" / "study.sqlite3").exists()


def test_a_choice_that_does_not_go_with_the_others_is_told_beside_them(tmp_path):
    changes = ["training.rollout_steps={tune: [32, 33]}", "training.sequence_length=16"]
    with pytest.raises(ConfigError) as refused:
        tune(CONFIG, changes, trials=1, output=tmp_path)
    (problem,) = refused.value.problems
    assert problem.path == "training.sequence_length"
    assert problem.message == (
        "rollout_steps=33 is not a multiple of sequence_length=16 (with training.rollout_steps=33)"
    )


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ([], {"metric": "validation-loss"}, "who learns by playing has no validation loss"),
        ([], {"sampler": "tpee"}, "there is no sampler 'tpee' (did you mean 'tpe'?)"),
        ([], {"trials": 0}, "at least one trial"),
        (["~training"], {}, "training: this section is required to tune"),
        (["~environment"], {}, "environment: "),
    ],
)
def test_what_can_not_be_searched_is_refused(tmp_path, change, options, message):
    with pytest.raises(ConfigError) as refused:
        tune(CONFIG, change, **{"trials": 1, "output": tmp_path, **options})
    assert message in str(refused.value)


def test_a_configuration_without_spaces_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no search space: write \{tune: \[…\]\}"):
        tune("cartpole", trials=1, output=tmp_path)


def test_a_folder_holds_one_search_by_one_process(tmp_path, monkeypatch):
    with_play(monkeypatch, lambda values, tell: 1.0)
    tune(CONFIG, trials=1, output=tmp_path)
    with pytest.raises(CheckpointError, match="holds the search of another configuration or metric"):
        tune(CONFIG, ["training.gamma=0.5"], trials=1, output=tmp_path)
    with held(tmp_path), pytest.raises(PolicysmithError, match="another search is at work"):
        tune(CONFIG, trials=2, output=tmp_path)


def test_a_file_that_is_no_study_is_named(tmp_path):
    (tmp_path / "study.sqlite3").write_text("something else")
    with pytest.raises(CheckpointError, match=r"study\.sqlite3: cannot be opened as a study"):
        tune(CONFIG, trials=1, output=tmp_path)


def test_without_the_extra_its_name_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'policysmith\[tune\]'"):
        tune(CONFIG, trials=1, output=tmp_path)


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on(tmp_path):
    code = (
        "import os, signal\nfrom policysmith.tuning import trial_run, tune\n"
        f"from tests.tuning.test_run_search import CONFIG\nbefore = trial_run._Watch.__call__\ncalls = []\n"
        "def kill(self, report):\n    calls.append(report)\n"
        "    if len(calls) == 3: os.kill(os.getpid(), signal.SIGKILL)\n    return before(self, report)\n"
        f"trial_run._Watch.__call__ = kill\ntune(CONFIG, trials=3, output={str(tmp_path)!r})\n"
    )
    # two reports a trial: the third call is in the midst of the second one
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    found = tune(CONFIG, trials=3, output=tmp_path)
    assert len(found.trials) == 3 and {trial.state for trial in found.trials} == {"complete"}
    assert found.trials[0].number == 0 and found.trials[1].number == 2, "number 1 was put back"


@pytest.mark.slow
def test_two_workers_share_a_search(tmp_path):
    found = tune(CONFIG, trials=4, output=tmp_path, workers=2, sampler="random")
    assert [trial.state for trial in found.trials] == ["complete"] * 4
    assert len({trial.values["training.learning_rate"] for trial in found.trials}) == 4
    assert policysmith.load(found.artifact) is not None and found.files["config"].is_file()
