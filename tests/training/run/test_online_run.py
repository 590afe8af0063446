import json
import os
import signal

import pytest
import torch

import policysmith
from policysmith.errors import CheckpointError, ConfigError
from policysmith.store import load_training
from policysmith.training.ppo.ppo import PPO
from policysmith.training.run import online_run, run_folder


def test_training_stores_an_artifact_with_curve_and_diagram_that_loads_to_the_same_policy(cartpole_config, tmp_path):
    result = policysmith.train(cartpole_config, output=tmp_path / "run", progress=False)
    assert result.steps == 1024 and result.evaluation.episodes == 4 and not result.interrupted
    assert {p.name for p in result.artifact.iterdir()} >= {
        "config.json", "model.safetensors", "manifest.json", "optimizer.safetensors", "training_state.json",
        "learning_curve.png", "model.svg", "logs",
    }  # fmt: skip
    obs = torch.randn(6, 4)
    for mine, theirs in zip(result.policy(obs), policysmith.load(result.artifact)(obs), strict=True):
        assert torch.equal(mine, theirs)


def test_the_same_seed_trains_the_same_weights(cartpole_config):
    one, two, other = (policysmith.train(cartpole_config, seed=s, progress=False, evaluate=False) for s in (5, 5, 6))
    weights = [torch.cat([p.flatten() for p in r.policy.parameters()]) for r in (one, two, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert one.returns == two.returns


def test_resume_continues_the_count_the_optimiser_and_the_history(cartpole_config, tmp_path):
    first = policysmith.train(cartpole_config, output=tmp_path / "run", progress=False)
    moments = load_training(first.artifact).tensors["optimizer/others/0/step"].item()
    second = policysmith.train(
        resume=first.artifact, overrides=["training.total_steps=2048"], progress=False, evaluate=False
    )
    assert second.steps == 2048 and second.artifact == first.artifact
    assert second.returns[: len(first.returns)] == first.returns
    assert load_training(second.artifact).tensors["optimizer/others/0/step"].item() == 2 * moments
    assert json.loads((second.artifact / "config.json").read_text())["experiment"]["training"]["total_steps"] == 2048


def test_resuming_into_another_folder_stores_there_and_leaves_the_first_alone(cartpole_config, tmp_path):
    first = policysmith.train(cartpole_config, output=tmp_path / "one", progress=False, evaluate=False).artifact
    before = (first / "model.safetensors").read_bytes()
    overrides = ["training.total_steps=2048"]
    second = policysmith.train(
        resume=first, output=tmp_path / "two", overrides=overrides, progress=False, evaluate=False
    )
    assert second.artifact == tmp_path / "two" and load_training(second.artifact).data["step"] == 2048
    assert (first / "model.safetensors").read_bytes() == before


def test_resuming_what_is_finished_or_another_model_is_refused(cartpole_config, tmp_path):
    done = policysmith.train(cartpole_config, output=tmp_path / "run", progress=False, evaluate=False).artifact
    with pytest.raises(ConfigError, match="has already trained 1024 steps; raise total_steps"):
        policysmith.train(resume=done, progress=False)
    with pytest.raises(ConfigError, match="another model"):
        policysmith.train(
            cartpole_config, ["model.hidden=[8]", "training.total_steps=4096"], resume=done, progress=False
        )


def test_an_existing_policy_is_never_overwritten(cartpole_config, tmp_path):
    artifact = policysmith.train(cartpole_config, output=tmp_path / "run", progress=False, evaluate=False).artifact
    before = (artifact / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="holds a policy already"):
        policysmith.train(cartpole_config, output=artifact, progress=False)
    assert (artifact / "model.safetensors").read_bytes() == before


def test_a_place_that_cannot_be_written_is_found_out_before_training(cartpole_config, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    monkeypatch.setattr(online_run, "make_vector", None)
    with pytest.raises(CheckpointError, match="full"):
        policysmith.train(cartpole_config, output=tmp_path / "full", progress=False)
    assert (tmp_path / "full" / "thesis.tex").read_text() == "years of work"


def test_ctrl_c_finishes_the_iteration_saves_and_can_be_resumed(cartpole_config, tmp_path, monkeypatch):
    take = online_run.OnlineRun.take

    def take_and_interrupt(run, report):
        if report.iteration == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return take(run, report)

    monkeypatch.setattr(online_run.OnlineRun, "take", take_and_interrupt)
    result = policysmith.train(cartpole_config, output=tmp_path / "run", progress=False)
    assert result.interrupted and result.steps == 512 and result.evaluation is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.undo()
    assert policysmith.train(resume=result.artifact, progress=False, evaluate=False).steps == 1024


def test_checkpoints_are_written_every_so_many_steps(cartpole_config, tmp_path, monkeypatch):
    saved = []
    original = run_folder.save
    monkeypatch.setattr(
        run_folder,
        "save",
        lambda *a, training, **k: saved.append(training.data["step"]) or original(*a, training=training, **k),
    )
    overrides = ["training.checkpoint_every=512"]
    policysmith.train(cartpole_config, overrides, output=tmp_path / "run", progress=False, evaluate=False)
    assert saved == [0, 512, 1024, 1024]


def test_tensorboard_holds_cleanrls_tags(cartpole_config, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    artifact = policysmith.train(cartpole_config, output=tmp_path / "run", progress=False, evaluate=False).artifact
    events = EventAccumulator(str(artifact / "logs"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert tags >= {"charts/SPS", "charts/episodic_return", "charts/episodic_length", "charts/learning_rate"}
    assert tags >= {f"losses/{n}" for n in ("policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac")}


@pytest.mark.parametrize(("target_kl", "expected"), [(1e-9, 1.0), (1e9, 10.0)])
def test_early_stopping_by_divergence_ends_the_epochs(cartpole_config, monkeypatch, target_kl, expected):
    """Where in between it stops, `test_ppo_update` compares with a loop."""

    overrides = [f"training.target_kl={target_kl}", "training.epochs=10", "training.learning_rate=0.01"]
    epochs, update = [], PPO.update
    monkeypatch.setattr(PPO, "update", lambda *a: epochs.append(update(*a)["charts/epochs"]) or {})
    assert policysmith.train(cartpole_config, overrides, progress=False, evaluate=False).steps == 1024
    assert epochs == [expected] * 4


def test_a_running_normaliser_learns_between_rollouts_and_is_stored(cartpole_config, tmp_path):
    overrides = ["observation.normalize=true"]
    result = policysmith.train(cartpole_config, overrides, output=tmp_path / "run", progress=False, evaluate=False)
    normaliser = policysmith.load(result.artifact).components["observation_normalizer"].module
    assert normaliser.count == 1024 and normaliser.variance.min() > 0 and normaliser.mean.abs().max() > 0


@pytest.mark.parametrize("missing", ["training", "environment"])
def test_what_training_needs_is_asked_for(cartpole_config, missing):
    del cartpole_config[missing]
    with pytest.raises(ConfigError, match=missing):
        policysmith.train(cartpole_config, progress=False)


def test_the_algorithm_that_was_checked_is_the_one_that_trains(cartpole_config, monkeypatch):
    made, init = [], PPO.__init__
    monkeypatch.setattr(PPO, "__init__", lambda self, **options: (made.append(self), init(self, **options))[1])
    policysmith.train(cartpole_config, progress=False, evaluate=False)
    assert len(made) == 1
