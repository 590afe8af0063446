"""However a run ends, what its last finished iteration taught is stored; resumed, it is the run that was stopped."""

import os
import random
import shutil
import signal

import numpy as np
import pytest
import torch

import policysmith
from policysmith import api
from policysmith.errors import CheckpointError, ConfigError, PolicysmithError
from policysmith.registry import default_registry
from policysmith.store import load_training
from policysmith.training.run import online_run
from policysmith.training.run.run import Run
from policysmith.training.run.run_folder import RunFolder
from tests.training.offline_data import walk
from tests.training.run.resumable_runs import RUNS, frail, recurrent, train, weights


def stop_at(monkeypatch, iteration, signals=1):
    """Ctrl-C, so many times, when that iteration has ended."""
    take = online_run.OnlineRun.take

    def take_and_stop(run, report):
        for _ in range(signals if report.iteration == iteration else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return take(run, report)

    monkeypatch.setattr(online_run.OnlineRun, "take", take_and_stop)


def test_an_error_stores_the_last_finished_iteration_and_says_so(tmp_path):
    with pytest.raises(RuntimeError, match="the simulator died") as caught:
        train(frail(ends=40), output=tmp_path / "run")
    assert caught.value.__notes__ == [
        f"what 64 steps taught is saved in {tmp_path / 'run'}; "
        f"policysmith train --resume {tmp_path / 'run'} goes on from there"
    ]
    data = load_training(tmp_path / "run").data
    assert data["step"] == 64
    assert data["ended"].startswith("EnvironmentFailure: Frail.step raised RuntimeError: the simulator died (")
    half = train(frail(), "training.total_steps=64", output=tmp_path / "half").policy
    assert torch.equal(weights(policysmith.load(tmp_path / "run")), weights(half))


def test_an_error_in_an_update_does_not_store_half_of_it(tmp_path, monkeypatch):
    from policysmith.training.ppo.ppo import PPO

    update, calls = PPO.update, []

    def fail_later(self, *args, **options):
        found = update(self, *args, **options)
        calls.append(1)
        if len(calls) == 3:
            raise ArithmeticError("after the weights have changed")
        return found

    monkeypatch.setattr(PPO, "update", fail_later)
    with pytest.raises(ArithmeticError):
        train(frail(), output=tmp_path / "run")
    monkeypatch.undo()
    whole = train(frail(), output=tmp_path / "whole")
    resumed = train(None, resume=tmp_path / "run")
    assert load_training(tmp_path / "whole").data["step"] == 128
    assert torch.equal(weights(resumed.policy), weights(whole.policy)) and resumed.returns == whole.returns


def test_a_killed_worker_is_named_and_nothing_is_lost(tmp_path):
    with pytest.raises(
        PolicysmithError, match=r"the worker process of environment \d \(exit code -9\).* ended"
    ) as caught:
        train(frail("async", ends=40, kill=True), output=tmp_path / "run")
    assert "what 64 steps taught is saved" in caught.value.__notes__[0]
    assert load_training(tmp_path / "run").data["step"] == 64


def test_the_first_ctrl_c_answers_at_once_and_the_second_loses_nothing(tmp_path, monkeypatch, capfd):
    stop_at(monkeypatch, 2, signals=2)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(frail(), output=tmp_path / "run")
    assert "finishing the iteration; press Ctrl-C again to stop now" in capfd.readouterr().err
    assert "what 32 steps taught is saved" in caught.value.__notes__[0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("ends", [1, 5])
def test_a_start_that_fails_leaves_the_place_free(tmp_path, ends):
    with pytest.raises(RuntimeError):
        train(frail(ends=ends), output=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    assert train(frail(), output=tmp_path / "run").steps == 128


def test_a_place_where_a_run_was_killed_before_it_learned_is_free(tmp_path, cartpole_config):
    place = tmp_path / "run"
    policy = policysmith.build(cartpole_config)
    from policysmith.store import TrainingState, save

    save(policy, place, training=TrainingState({"rng/torch": torch.get_rng_state()}, {"step": 0}))
    assert train(frail(), output=place).steps == 128
    with pytest.raises(CheckpointError, match="holds a policy already"):
        train(frail(), output=place)


def test_two_trainings_into_one_folder_the_second_is_refused(tmp_path):
    told = pytest.raises(PolicysmithError, match=r"another training is at work in .*run: wait for its end")
    with RunFolder(tmp_path / "run").claim(), told:
        train(frail(), output=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def files_of(place):
    return {p.relative_to(place): (p.stat().st_ino, p.read_bytes()) for p in place.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("environment.id=CartPole-v1", "the policy reads"),
        ("training.total_steps=128", "already trained 128 steps"),
        ("training.total_steps=140", "an iteration has 32: raise total_steps to 160"),
        ("environment.options.ends=1", "the simulator died"),
        ("observation.normalize=true", "observation: the artifact to resume reads its observations otherwise"),
        ("observation.scale={observation: 2.0}", "observation: the artifact to resume reads its observations"),
    ],
)
def test_a_resume_that_is_refused_changes_nothing_on_disk(tmp_path, change, told):
    train(frail(), output=tmp_path / "run")
    before = files_of(tmp_path)
    with pytest.raises((ConfigError, RuntimeError), match=told):
        train(None, "training.total_steps=1280", change, resume=tmp_path / "run")
    assert files_of(tmp_path) == before


def test_total_steps_that_are_no_multiple_are_told():
    assert train(frail(), "training.total_steps=100").notes == [
        "total_steps=100 is no multiple of an iteration's 32 steps: 96 are trained"
    ]


@pytest.fixture(autouse=True)
def _types_of_others_stay_as_they_are():
    """The callback is registered by `train` and gone after a test: others list the types that there are."""
    yield
    default_registry._entries["callback"].pop("counting", None)


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_that_was_stopped_goes_on_as_the_one_that_was_not(tmp_path, monkeypatch, kind):
    config = RUNS[kind]()
    whole = train(config, output=tmp_path / "whole")
    for iteration in (1, 3):
        stop_at(monkeypatch, iteration)
        options = {"output": tmp_path / "run"} if iteration == 1 else {"resume": tmp_path / "run"}
        stopped = train(config if iteration == 1 else None, **options)
        assert stopped.interrupted
        monkeypatch.undo()
        random.seed(99), np.random.seed(99), torch.manual_seed(99)
    resumed = train(None, resume=tmp_path / "run")
    assert [note for note in resumed.notes if "resumed" in note] == []
    assert torch.equal(weights(resumed.policy), weights(whole.policy))
    assert resumed.returns == whole.returns and len(whole.returns) > 2
    one, other = (load_training(tmp_path / name) for name in ("whole", "run"))
    drawn = {"environments"}  # spaces that nobody seeds have generators of their own in every process
    assert {k: v for k, v in one.data.items() if k not in drawn} == {
        k: v for k, v in other.data.items() if k not in drawn
    }
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def test_what_cannot_be_brought_back_says_why(tmp_path):
    train(frail(foreign=True), "training.total_steps=64", output=tmp_path / "run")
    told = "resumed with new episodes, and not as the run would have gone on: environment 0 can't be brought back"
    resumed = train(None, "training.total_steps=128", resume=tmp_path / "run")
    assert resumed.steps == 128 and any(note.startswith(told) for note in resumed.notes)


def test_a_schedule_whose_horizon_moves_is_told(tmp_path):
    config = recurrent()
    train(config, "training.total_steps=96", output=tmp_path / "run")
    notes = train(None, "training.total_steps=192", resume=tmp_path / "run").notes
    assert "learning_rate follows the share of total_steps that is done, which is 50% now and was 100%" in notes


def test_the_best_policy_and_the_last_checkpoints_stay_beside_the_latest(tmp_path):
    config = recurrent()
    changes = ["training.checkpoint_every=48", "training.keep_checkpoints=2", "evaluation.every=48"]
    result = policysmith.train(config, changes, output=tmp_path / "run", progress=False)
    place = tmp_path / "run"
    assert {p.name for p in (place / "checkpoints").iterdir()} == {"240", "288"}
    assert load_training(place / "checkpoints" / "240").data["step"] == 240
    rows = [line.split(",") for line in (place / "evaluations.csv").read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == [48, 96, 144, 192, 240, 288]
    best = max(rows, key=lambda row: float(row[1]))
    assert load_training(place).data["best"] == {"step": int(best[0]), "mean": float(best[1])}
    assert policysmith.evaluate(place / "best").mean == float(best[1])
    assert result.files["best"] == place / "best" and result.evaluation.mean == float(rows[-1][1])


def test_solved_at_judges_by_the_evaluations_where_they_are_made(cartpole_config):
    changes = ["training.solved_at=1", "evaluation.every=512"]
    result = policysmith.train(cartpole_config, changes, progress=False)
    assert result.steps == 512 and result.evaluation.mean >= 1


def test_a_checkpoint_holds_the_latest_returns_and_the_history_all(tmp_path):
    train(frail(), "training.total_steps=1024", output=tmp_path / "run")
    data = load_training(tmp_path / "run").data
    assert len(data["returns"]) == 100 and data["episodes"] == 146
    with (tmp_path / "run" / "returns.csv").open("a") as stream:  # what a killed run wrote after its last checkpoint
        stream.write("1040,3.0,7\n1041,2")
    resumed = train(None, "training.total_steps=1056", resume=tmp_path / "run")
    rows = (tmp_path / "run" / "returns.csv").read_text().splitlines()[1:]
    assert [float(row.split(",")[1]) for row in rows] == [value for _, value in resumed.returns]
    assert "1040,3.0,7" not in rows and len(rows) > 146


def test_a_checkpoint_that_holds_every_return_itself_is_resumed(tmp_path):
    """As they were before there was a history."""
    from policysmith.store import TrainingState, save

    train(frail(), output=tmp_path / "run")
    state = load_training(tmp_path / "run")
    new = ("episodes", "environments", "evaluations", "best", "callbacks", "generators", "total_steps")
    data = {key: value for key, value in state.data.items() if key not in new}
    tensors = {key: t for key, t in state.tensors.items() if key == "rng/torch" or key.startswith("optimizer/")}
    (tmp_path / "run" / "returns.csv").unlink()
    save(policysmith.load(tmp_path / "run"), tmp_path / "run", training=TrainingState(tensors, data))
    resumed = train(None, "training.total_steps=160", resume=tmp_path / "run")
    assert [list(pair) for pair in resumed.returns[: len(data["returns"])]] == data["returns"]
    assert (tmp_path / "run" / "returns.csv").read_text().count("\n") == len(resumed.returns) + 1


def test_a_full_disk_ends_no_run_on_the_way(tmp_path, monkeypatch):
    write, failed = RunFolder.write, []

    def full(self, policy, training):
        if training.data["step"] == 64 and not failed:
            failed.append(1)
            raise CheckpointError("no space left on device")
        write(self, policy, training)

    monkeypatch.setattr(RunFolder, "write", full)
    result = train(frail(), "training.checkpoint_every=32", output=tmp_path / "run")
    assert failed and result.steps == 128
    assert result.notes == ["a checkpoint could not be written: no space left on device"]


def test_what_a_kill_would_leave_at_a_checkpoint_goes_on_as_the_run_that_was_not_stopped(tmp_path, monkeypatch):
    """Killed for real, at any moment: tests/training/run/test_killed_runs.py."""
    save = Run.save

    def keep_what_lies_there(self, whole=True):
        save(self, whole)
        if self.step == 96:
            shutil.copytree(self.output, tmp_path / "killed")

    monkeypatch.setattr(Run, "save", keep_what_lies_there)
    whole = train(recurrent(), "training.checkpoint_every=96", output=tmp_path / "whole")
    monkeypatch.undo()
    resumed = train(None, resume=tmp_path / "killed")
    assert torch.equal(weights(resumed.policy), weights(whole.policy)) and resumed.returns == whole.returns


def test_offline_an_error_stores_what_the_updates_before_taught(tmp_path, monkeypatch):
    from policysmith.training.run import offline_run
    from tests.training.run.test_offline_run import on_disk, write_episodes

    description = on_disk(write_episodes(tmp_path / "data", walk()), report_every=5)
    whole = api.train_offline(description, progress=False).policy
    update = offline_run.OfflineRun.update

    def fail(self, count):
        if count == 17:
            raise ArithmeticError("the data ended")
        return update(self, count)

    monkeypatch.setattr(offline_run.OfflineRun, "update", fail)
    with pytest.raises(ArithmeticError) as caught:
        api.train_offline(description, output=tmp_path / "run", progress=False)
    monkeypatch.undo()
    assert "what 15 updates taught is saved" in caught.value.__notes__[0]
    resumed = api.train_offline(resume=tmp_path / "run", progress=False)
    assert torch.equal(weights(resumed.policy), weights(whole)) and resumed.updates == 30


def test_offline_an_error_after_a_spoiled_update_stores_the_last_finite_state(tmp_path, monkeypatch):
    """Between two looks at all that is learned, a copy of what an update has just spoiled is no state to go back to."""
    from policysmith.training.run import offline_run
    from tests.training.run.test_offline_run import on_disk, write_episodes

    update = offline_run.OfflineRun.update

    def spoil(self, count):
        if count == 14:
            raise ArithmeticError("the data ended")
        stop = update(self, count)
        if count == 12:
            next(self.policy.parameters()).data.view(-1)[0] = float("inf")
        return stop

    monkeypatch.setattr(offline_run.OfflineRun, "update", spoil)
    monkeypatch.setattr(offline_run.OfflineRun, "_is_old", lambda self: True)
    with pytest.raises(ArithmeticError) as caught:
        description = on_disk(write_episodes(tmp_path / "data", walk()))
        api.train_offline(description, output=tmp_path / "run", progress=False)
    assert "what 12 updates taught is saved" in caught.value.__notes__[0]
    assert weights(policysmith.load(tmp_path / "run")).isfinite().all()
