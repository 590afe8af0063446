"""The average of the weights: what it is, that it is what is stored, and that a run goes on as if unstopped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import policysmith
from policysmith.errors import WiringError
from policysmith.training.optim.averaging import WeightAverage
from policysmith.training.optim.optimizers import Optimizers

CONFIG = {
    "environment": {"id": "CartPole-v1", "num_envs": 2},
    "model": {"type": "mlp", "hidden": [8]},
    "training": {"type": "ppo", "total_steps": 64, "rollout_steps": 16, "minibatches": 2, "epochs": 1, "ema": 0.9},
}


def weights(policy) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def test_it_follows_the_steps_of_an_optimiser_and_is_put_back():
    layer = nn.Linear(2, 1, bias=False)
    average, optimizer = WeightAverage(layer, 0.75), Optimizers.of(list(layer.parameters()), 0.1)
    average.follow(optimizer)
    expected = layer.weight.detach().clone()
    for _ in range(3):
        optimizer.step(layer.weight.sum())
        expected = 0.75 * expected + 0.25 * layer.weight.detach()
    learning = layer.weight.detach().clone()
    with average.applied():
        assert torch.allclose(layer.weight, expected)
    assert torch.equal(layer.weight, learning) and not torch.allclose(learning, expected)
    average.settle()
    assert torch.allclose(layer.weight, expected)


def test_what_learns_is_the_same_with_and_without_and_the_average_is_what_is_stored(tmp_path):
    averaged = policysmith.train(CONFIG, output=tmp_path / "run", progress=False, evaluate=False).policy
    plain = policysmith.train(CONFIG, ["training.ema=null"], progress=False, evaluate=False).policy
    assert torch.equal(weights(policysmith.load(tmp_path / "run")), weights(averaged))
    assert not torch.allclose(weights(averaged), weights(plain))
    from policysmith.store import load_training

    stored = load_training(tmp_path / "run").tensors
    for name, parameter in plain.named_parameters():
        assert torch.equal(stored[f"learning/{name}"], parameter), name


def test_a_resumed_run_goes_on_with_the_weights_that_learn(tmp_path):
    policysmith.train(CONFIG, output=tmp_path / "run", progress=False, evaluate=False)
    from policysmith.store import load_training

    before = load_training(tmp_path / "run").tensors
    more = ["training.total_steps=96", "training.learning_rate=0.0"]
    policysmith.train(None, more, resume=tmp_path / "run", progress=False, evaluate=False)
    after = load_training(tmp_path / "run").tensors
    learning = [name for name in before if name.startswith("learning/")]
    assert learning and all(torch.equal(before[name], after[name]) for name in learning)


def swapping():
    policy = policysmith.build(CONFIG, seed=0)
    average, optimizer = WeightAverage(policy, 0.75), Optimizers.of(list(policy.parameters()), 0.1)
    average.follow(optimizer)
    return policy, average, optimizer


def stepped(optimizer, policy):
    optimizer.step(policy.get_value(torch.ones(2, 4)).sum() + policy(torch.ones(2, 4))[0].square().sum())


def test_a_swap_keeps_the_average_of_what_stays_and_starts_that_of_what_comes():
    policy, average, optimizer = swapping()
    stepped(optimizer, policy)
    with average.applied():
        before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    policy.replace_component("actor", {"type": "mlp", "hidden": [5, 8]}, optimizer=optimizer)
    came = {name: p.detach().clone() for name, p in policy.named_parameters() if ".actor." in name}
    stepped(optimizer, policy)
    learning = average.learning()
    assert learning.keys() == dict(policy.named_parameters()).keys()
    with average.applied():
        for name, parameter in policy.named_parameters():
            start = came[name] if name in came else before[name]
            expected = 0.75 * start + 0.25 * learning[name]
            torch.testing.assert_close(parameter, expected)
    policy.rollback()
    with average.applied():
        for name, parameter in policy.named_parameters():
            if ".actor." in name:
                assert torch.equal(parameter, before[name])


def test_no_component_is_swapped_while_the_average_stands_in_the_weights_place():
    policy, average, optimizer = swapping()
    with average.applied(), pytest.raises(WiringError, match="the average stands in the place of the weights"):
        policy.replace_component("actor", {"type": "mlp", "hidden": [5, 8]}, optimizer=optimizer)
    policy.replace_component("actor", {"type": "mlp", "hidden": [5, 8]}, optimizer=optimizer)
