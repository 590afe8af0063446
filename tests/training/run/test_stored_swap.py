"""A swap on disk keeps what of the training state still fits, rule by rule, and the run goes on."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import policysmith
from policysmith import api
from policysmith.errors import CheckpointError
from policysmith.registry import default_registry
from policysmith.store import TrainingState, load_training, save
from policysmith.training.optim.optimizers import optimize, stored_state

NEW = {"actor": {"type": "mlp", "hidden": [12], "norm": "layer"}}
RULES = {
    "optimizer": {"type": "adamw", "weight_decay": 0.1},
    "optimizers": {"actor": {"type": "sgd", "momentum": 0.9}},
}


def config(**training):
    steps = {"type": "ppo", "total_steps": 32, "rollout_steps": 16, "minibatches": 2, "epochs": 1}
    return {
        "environment": {"id": "CartPole-v1", "num_envs": 2},
        "model": {"type": "mlp", "hidden": [8]},
        "training": steps | training,
    }


def moments(directory):
    """The critic's moments, which a swap of the actor leaves alone, by the name of the parameter."""
    policy, tensors = policysmith.load(directory), load_training(directory).tensors
    algorithm = default_registry.decode("algorithm", policy.config["training"]).build()
    optimizer = optimize(policy.components, algorithm.usual, algorithm.optimizers)
    optimizer.load_state(stored_state(tensors))
    state = {p: entry for inner in optimizer.torch_optimizers.values() for p, entry in inner.state.items()}
    return {
        name: {k: t.clone() for k, t in state[p].items()}
        for name, p in policy.named_parameters()
        if ".critic." in name and p in state
    }


@pytest.mark.parametrize("training", [{"ema": 0.9}, {**RULES, "ema": 0.9}], ids=["adam", "rules"])
def test_a_run_goes_on_after_a_swap(training, tmp_path):
    run = tmp_path / "run"
    policysmith.train(config(**training), output=run, progress=False, evaluate=False)
    before, learning = moments(run), load_training(run).tensors
    api.swap(run, NEW, resize=True)
    after, state = moments(run), load_training(run).tensors
    assert before and before.keys() == after.keys()
    for name, entry in before.items():
        assert all(torch.equal(after[name][key], tensor) for key, tensor in entry.items())
    for name, parameter in policysmith.load(run).named_parameters():
        found = state[f"learning/{name}"]
        assert torch.equal(found, parameter if re.search(r"\.(actor|policy)\.", name) else learning[f"learning/{name}"])
    policysmith.train(None, ["training.total_steps=64"], resume=run, progress=False, evaluate=False)


@pytest.mark.parametrize("rule", ["adam", {"type": "adamw", "weight_decay": 0.1}], ids=["plain", "decay"])
def test_what_an_objective_trains_besides_keeps_its_moments(rule, tmp_path):
    """Stood for by its moments alone: after the policy's parameters, matrices first where there is decay."""
    policy, own = policysmith.build(config(optimizer=rule), seed=0), nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
    usual = default_registry.decode("optimizer", rule)
    made = optimize(policy.components, usual, {}, extra=list(own.parameters()))
    _, value = policy(torch.randn(3, 4))
    made.step(value.sum() + policy(torch.randn(3, 4))[0].square().sum() + own(torch.randn(3, 3)).sum())
    tensors = {f"optimizer/{name}": tensor for name, tensor in made.state().items()}
    save(policy, tmp_path / "p", training=TrainingState(tensors, {}))
    swapped = api.swap(tmp_path / "p", NEW, resize=True)
    again = optimize(swapped.components, usual, {}, extra=list(own.parameters()))
    stored = load_training(tmp_path / "p").tensors
    again.load_state(stored_state(stored))
    ((inner,), (was,)) = again.torch_optimizers.values(), made.torch_optimizers.values()
    for parameter in own.parameters():
        assert torch.equal(inner.state[parameter]["exp_avg"], was.state[parameter]["exp_avg"])


def test_moments_of_another_policy_are_refused(tmp_path):
    policy = policysmith.build(config(), seed=0)
    save(policy, tmp_path / "p", training=TrainingState({"optimizer/others/0/exp_avg": torch.zeros(7, 9)}, {}))
    with pytest.raises(CheckpointError, match=r"exp_avg \(7, 9\) of parameter 'others/0'"):
        api.swap(tmp_path / "p", NEW, resize=True)
