"""Batches in parts: that nothing is lost or doubled, and that the update is that of the whole."""

from __future__ import annotations

import pytest
import torch

import policysmith
from policysmith import api
from policysmith.store import load_training
from policysmith.training.offline.batches import Sampler, units_of
from policysmith.training.offline.data import OfflineData
from policysmith.training.offline.micro_batches import micro_batches
from tests.training.offline_data import BOX, REMEMBERING, config, flowing, walk

DISCRETE = walk("discrete")


def weights(policy) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


@pytest.mark.parametrize("model", [None, REMEMBERING], ids=["rows", "windows"])
def test_parts_hold_every_transition_once(model):
    policy = policysmith.build(config(model=model), BOX, DISCRETE.action_space)
    data, units = OfflineData(DISCRETE, policy), units_of(policy, DISCRETE, torch.arange(7), 4, 1)
    batch = Sampler(data, units, 16, 0).batch(0)
    parts = micro_batches(batch, 5)
    assert len(parts) == 5 and sum(part.share for part in parts) == pytest.approx(1.0)
    assert torch.equal(torch.cat([part.batch.rows for part in parts]), batch.rows)
    for name in ("observations", "actions"):
        joined = [torch.cat(leaf) for leaf in zip(*(getattr(part.batch, name) for part in parts), strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(joined, getattr(batch, name), strict=True))
    assert (
        len(micro_batches(batch, 100)) == (16 if batch.shape is None else batch.shape[0])
        and micro_batches(batch, 1)[0].batch is batch
    )


@pytest.mark.parametrize(
    ("objective", "kind", "model"),
    [
        ("bc", "dict", None),
        ("bc", "discrete", REMEMBERING),
        ("awr", "multi_discrete", None),
        ("iql", "discrete", None),
        ("flow_matching", "box", flowing(horizon=3)),
    ],
    ids=["bc", "bc-windows", "awr", "iql", "flow_matching"],
)
def test_parts_make_the_update_of_the_whole_batch(objective, kind, model):
    """Only the order of the sums differs."""
    data = walk(kind, final=objective != "iql")  # then some steps of iql do not count
    runs = [
        api.train_offline(config(objective, model, updates=3, batch_size=13), [change], dataset=data, progress=False)
        for change in ("training.accumulate=1", "training.accumulate=4")
    ]
    difference = (weights(runs[0].policy) - weights(runs[1].policy)).abs().max().item()
    assert 0 <= difference <= 1e-6, difference
    assert runs[0].metrics["training/loss"] == pytest.approx(runs[1].metrics["training/loss"], rel=1e-5)


def test_the_average_is_what_is_stored_and_judged_and_what_learns_is_the_same(tmp_path):
    description = config(updates=20, learning_rate=0.01)
    plain = api.train_offline(description, dataset=DISCRETE, progress=False)
    averaged = api.train_offline(
        description, ["training.ema=0.9"], dataset=DISCRETE, progress=False, output=tmp_path / "run"
    )
    assert torch.equal(weights(policysmith.load(tmp_path / "run")), weights(averaged.policy))
    stored = load_training(tmp_path / "run").tensors
    for name, parameter in plain.policy.named_parameters():
        assert torch.equal(stored[f"learning/{name}"], parameter), name
    assert not torch.allclose(weights(averaged.policy), weights(plain.policy))
    assert plain.metrics["training/loss"] == averaged.metrics["training/loss"]
    assert plain.metrics["validation/loss"] != averaged.metrics["validation/loss"]


def test_a_resumed_run_with_an_average_ends_as_an_uninterrupted_one(tmp_path):
    description = config(updates=30, ema=0.9, learning_rate=0.01)
    whole = api.train_offline(description, dataset=DISCRETE, progress=False)
    api.train_offline(description, ["training.updates=12"], dataset=DISCRETE, progress=False, output=tmp_path / "run")
    resumed = api.train_offline(
        None, ["training.updates=30"], resume=tmp_path / "run", dataset=DISCRETE, progress=False
    )
    assert torch.equal(weights(whole.policy), weights(resumed.policy))
