"""Runs that meet numbers that are not finite: they go on, or stop with the place and the last finite policy."""

import importlib
import json
import math
import re

import pytest
import torch

import policysmith
from policysmith import api
from policysmith.errors import CheckpointError, ConfigError, DatasetError, DivergenceWarning, NonFiniteError
from policysmith.store import load_training
from policysmith.training.nonfinite.events import NonFinite, sentence
from policysmith.training.nonfinite.rollback import Rollback
from policysmith.training.offline.objectives import Learner
from policysmith.training.optim.optimizers import Optimizers
from policysmith.training.optim.snapshot import Snapshot
from policysmith.training.ppo.loss import PPOLoss
from policysmith.training.ppo.ppo import PPO
from tests.training.nonfinite.ill_environment import REMEMBERING, ill_config
from tests.training.offline_data import config as offline_config
from tests.training.offline_data import walk

NAN = float("nan")


def train(config, **options):
    return policysmith.train(config, progress=False, **options)


def assert_finite(policy):
    assert all(tensor.isfinite().all() for tensor in policy.state_dict().values())


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("model", ["mlp", REMEMBERING], ids=["mlp", "lstm"])
@pytest.mark.parametrize("kind", ["reward", "observation"])
def test_a_run_goes_on_without_the_rows_and_says_which(tmp_path, autoreset, model, kind):
    config = ill_config(model, {"loggers": ["json_lines"], "ema": 0.9, "accumulate": 2}, kind=kind, autoreset=autoreset)
    result = train(config, output=tmp_path / "run")
    assert_finite(policysmith.load(tmp_path / "run"))
    assert all(tensor.isfinite().all() for tensor in load_training(tmp_path / "run").tensors.values())
    assert math.isfinite(result.evaluation.mean) and all(math.isfinite(r) for _, r in result.returns)
    assert result.left_out.rows > 3 and result.left_out.updates == 0
    assert str(result.left_out.first) == f"environment 0, step 8: {kind} is nan"
    lines = (tmp_path / "run" / "logs" / "metrics.jsonl").read_text().splitlines()
    assert sum(json.loads(line).get("nonfinite/rows", 0) for line in lines) == result.left_out.rows


def test_an_environment_that_gives_nothing_else_ends_the_run_with_the_place(tmp_path):
    with pytest.raises(NonFiniteError, match=r"environment 0, step 80: reward is nan, for the 10th episode in a row"):
        train(ill_config(every=1), output=tmp_path / "run")
    assert_finite(policysmith.load(tmp_path / "run"))
    with pytest.raises(NonFiniteError, match="for the 2nd episode"):
        train(ill_config(every=1, training={"nonfinite": {"max": 2}}))


def spoiled(monkeypatch, since, factor=NAN):
    """From that iteration on the loss is not finite, in every minibatch but the first."""
    loss, update, counts = PPOLoss.of, PPO.update, {"iteration": 0, "step": 0}

    def count(self, *args, **options):
        counts["iteration"], counts["step"] = counts["iteration"] + 1, 0
        return update(self, *args, **options)

    def spoil(self, *args):
        counts["step"] += 1
        bad = counts["iteration"] > since and counts["step"] > 1
        return loss(self, *args) * (factor if bad else 1.0)

    monkeypatch.setattr(PPO, "update", count)
    monkeypatch.setattr(PPOLoss, "of", spoil)


def test_too_many_updates_in_a_row_end_the_run_at_the_last_whole_iteration(tmp_path, monkeypatch):
    config = ill_config(kind="none", training={"ema": 0.9})
    expected = train(config | {"training": config["training"] | {"total_steps": 128}}, output=tmp_path / "two")
    spoiled(monkeypatch, since=2)
    with pytest.raises(NonFiniteError, match="15 steps of the optimiser in a row"):
        train(config, output=tmp_path / "run")
    stored, wanted = load_training(tmp_path / "run"), load_training(tmp_path / "two")
    assert stored.data["step"] == 128 and expected.steps == 128
    for name, tensor in policysmith.load(tmp_path / "run").state_dict().items():
        assert torch.equal(tensor, expected.policy.state_dict()[name]), name
    for name, tensor in stored.tensors.items():
        assert not name.startswith(("optimizer/", "learning/")) or torch.equal(tensor, wanted.tensors[name]), name


def test_updates_that_are_left_out_are_counted_and_the_run_goes_on(monkeypatch):
    spoiled(monkeypatch, since=2)
    result = train(ill_config(kind="none", training={"minibatches": 2}))
    assert result.left_out.updates == 2 * 7 and result.left_out.first is None
    assert_finite(result.policy)


def test_weights_that_a_step_itself_makes_infinite_are_undone():
    sgd = {"optimizer": {"type": "sgd", "learning_rate": 3e38}, "max_grad_norm": None, "value_coef": 1e3}
    with pytest.raises(NonFiniteError, match="lower learning_rate"):
        train(ill_config(kind="none", training=sgd))


def test_a_learning_rate_far_too_large_warns_once():
    with pytest.warns(DivergenceWarning, match="norm of the weights grew from") as warned:
        train(ill_config(kind="none", training={"learning_rate": 1e6, "max_grad_norm": None}))
    assert len(warned) == 1


def test_a_policy_that_is_not_finite_is_never_stored(tmp_path):
    policy = policysmith.build({"model": "mlp", "environment": {"id": "CartPole-v1"}}, seed=0)
    policysmith.save(policy, tmp_path / "good")
    with torch.no_grad():
        next(policy.parameters()).view(-1)[3] = float("inf")
    with pytest.raises(CheckpointError, match=r"1 of \d+ numbers are not finite"):
        policysmith.save(policy, tmp_path / "good")
    assert_finite(policysmith.load(tmp_path / "good"))


@pytest.mark.parametrize("averaged", [None, 0.9])
def test_a_state_is_copied_once_an_iteration(tmp_path, monkeypatch, averaged):
    """By the run, for its checkpoints; whoever goes back to the last finite state takes over the same copies."""
    made, keep, kept = [], Rollback.keep, []

    def noting(self, step=None):
        keep(self, step)
        kept.append((self._kept, len(made)))

    make = Snapshot.__init__
    monkeypatch.setattr(Snapshot, "__init__", lambda self, live: (made.append(self), make(self, live))[1])
    monkeypatch.setattr(Rollback, "keep", noting)
    train(ill_config(kind="none", training={"ema": averaged}), output=tmp_path / "run")
    assert len(kept) == 4 and all(snapshot is made[count - 1] for snapshot, count in kept)
    assert len(made) == 1 + 4, "at the start and after each iteration"


def test_a_copy_from_before_a_step_is_not_taken_for_the_present_state():
    layer = torch.nn.Linear(2, 2)
    optimizer = Optimizers.of(list(layer.parameters()), 0.1)
    optimizer.snapshot = Snapshot.of([layer], optimizer)
    optimizer.step(layer.weight.sum())
    stepped = layer.weight.detach().clone()
    with pytest.raises(KeyboardInterrupt), Rollback([layer], optimizer, 10) as finite:
        finite.keep()
        optimizer.step(layer.weight.sum())
        raise KeyboardInterrupt
    assert torch.equal(layer.weight, stepped)


def test_an_exception_within_an_iteration_leaves_what_the_last_whole_one_led_to():
    layer = torch.nn.Linear(2, 2)
    optimizer = Optimizers.of(list(layer.parameters()), 0.1)
    before = layer.weight.detach().clone()
    with pytest.raises(KeyboardInterrupt), Rollback([layer], optimizer, 10) as finite:
        finite.keep()
        optimizer.step(layer.weight.sum())
        raise KeyboardInterrupt
    assert torch.equal(layer.weight, before) and not optimizer.state(), "moments came with the step"
    with pytest.raises(KeyboardInterrupt), Rollback([layer], optimizer, 10) as finite:
        finite.keep()
        optimizer.step(layer.weight.sum())
        finite.settle()
        raise KeyboardInterrupt
    assert not torch.equal(layer.weight, before) and optimizer.state()


def test_the_option_is_checked():
    with pytest.raises(ConfigError, match=r"training.nonfinite.max"):
        train(ill_config(training={"nonfinite": {"max": 0}}))


def test_a_sentence_tells_the_first_few_and_counts_the_rest():
    events = [NonFinite(step, 2, "observation.image", NAN) for step in range(1000, 1005)]
    told = sentence(events, 4)
    assert told.startswith("left out what is not finite: environment 2, step 1,000: observation.image is nan; ")
    assert told.endswith("; and 2 more; 4 updates whose loss or gradients are not finite")
    assert sentence([]) == ""


def test_data_with_a_number_that_is_not_finite_is_refused_by_row_and_key():
    for key, row, objective in (("observation", 7, "bc"), ("reward", 20, "awr"), ("action", 3, "bc")):
        episodes = walk("box")
        column = episodes.columns[key]
        column[row].view(-1)[-1] = float("-inf") if column.dim() > 1 else NAN
        episode = int((episodes.starts <= row).sum()) - 1
        place = f"row {row} (episode {episode}, step {row - int(episodes.starts[episode])})"
        with pytest.raises(DatasetError, match=f"'{key}' is (-inf|nan) in " + re.escape(place)):
            api.train_offline(offline_config(objective), dataset=episodes, progress=False)


def test_what_closes_an_episode_may_hold_anything_but_an_observation():
    episodes = walk("box")
    ends = episodes.starts + episodes.lengths
    episodes.columns["reward"][ends] = NAN
    episodes.columns["action"][ends] = NAN
    api.train_offline(offline_config("iql"), dataset=episodes, progress=False)
    episodes.columns["observation"][ends[2], 0] = NAN
    with pytest.raises(DatasetError, match="'observation' is nan"):
        api.train_offline(offline_config("iql"), dataset=episodes, progress=False)


@pytest.mark.parametrize("objective", ["bc", "awr", "iql"])
def test_offline_updates_that_are_not_finite_are_left_out(objective, monkeypatch, tmp_path):
    module = importlib.import_module(f"policysmith.training.offline.objectives.{objective}")
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Learner)]
    found = [kind for kind in kinds if kind is not Learner and "loss" in vars(kind)]
    learner, loss, calls = found[0], found[0].loss, []
    bad_from = 10**9

    def spoiled(self, batch):
        calls.append(batch)
        value = loss(self, batch)
        return value._replace(value=value.value * NAN) if len(calls) % 3 == 0 or len(calls) > bad_from else value

    monkeypatch.setattr(learner, "loss", spoiled)
    config = offline_config(objective, ema=0.9, validation_share=0.0)
    result = api.train_offline(config, dataset=walk("box"), output=tmp_path / "run", progress=False)
    assert result.metrics["nonfinite/updates"] and math.isfinite(result.metrics["training/loss"])
    assert result.left_out.updates == 10 and str(result.left_out).startswith("10 updates with numbers that are not")
    assert_finite(policysmith.load(tmp_path / "run"))
    calls.clear()
    bad_from = 4
    with pytest.raises(NonFiniteError, match="steps of the optimiser in a row"):
        api.train_offline(config, dataset=walk("box"), output=tmp_path / "stopped", progress=False)
    assert_finite(policysmith.load(tmp_path / "stopped"))
