"""Training writes to a store: policies on the way, with what is known of them and where they come from."""

from __future__ import annotations

import pytest
import torch

import policysmith
from policysmith.errors import CheckpointError, ConfigError
from policysmith.store import PolicyStore


@pytest.fixture
def config(cartpole_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return {**cartpole_config, "store": {"every": 2}}  # of four iterations


def train(config, **options):
    return policysmith.train(config, progress=False, **options)


def test_policies_on_the_way_and_at_the_end_are_kept_with_their_lineage(config, tmp_path):
    result = train(config, output="run")
    store = PolicyStore(tmp_path / "policies")
    records = store.find()[::-1]
    assert [(r.step, r.epoch) for r in records] == [(512, 2), (1024, 4), (1024, 4)]
    assert [r.parents for r in records] == [(), (records[0].id,), (records[1].id,)]
    assert {r.name for r in records} == {"CartPole-v1"}
    assert all(r.metrics["return"] > 0 and r.metrics["episodes"] > 0 for r in records)
    assert [r.metrics.get("evaluation") for r in records] == [None, None, result.evaluation.mean]
    loaded = store.load("best:evaluation").state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in result.policy.state_dict().items())


def test_a_resumed_run_goes_on_from_its_latest_record(config, tmp_path):
    train({**config, "name": "mine"}, output="run", evaluate=False)
    store = PolicyStore(tmp_path / "policies")
    before = store.get("latest")
    train(None, resume="run", overrides=["training.total_steps=1536"], evaluate=False)
    assert [r.parents for r in store.find("name:mine") if r.step == 1536][-1] == (before.id,)
    assert len(store.lineage("latest")) == len(store.find())


def test_without_the_section_nothing_is_kept(cartpole_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(cartpole_config, evaluate=False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_with_a_store_is_said_before_training(config, tmp_path):
    with pytest.raises(ConfigError, match=r"store\.name: a policy can't be named 'my run'"):
        train({**config, "name": "my run"})
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "notes").touch()
    with pytest.raises(CheckpointError, match="holds files but no store"):
        train(config)
