"""Frozen: a component that computes and does not learn."""

import torch
from torch import nn

from policysmith.graph import TensorComponent
from policysmith.wrappers import Frozen, RegularizedModule, SafeModule

from .parts import chain, observations, policy_of

X = torch.ones(2, 4)


def test_gradients_pass_through_and_stop_at_no_weight():
    module = chain(4, 3)
    x = X.clone().requires_grad_()
    Frozen(module)({"input": x})["output"].sum().backward()
    assert x.grad.any()
    assert all(p.grad is None and not p.requires_grad for p in module.parameters())


def test_training_mode_leaves_it_in_evaluation_mode_from_any_depth():
    dropout, norm = nn.Dropout(0.9), nn.BatchNorm1d(4)
    wrapped = SafeModule(
        Frozen(RegularizedModule(TensorComponent(nn.Sequential(norm, dropout), ["input"], ["output"])))
    )
    wrapped.train()
    before = norm.running_mean.clone()
    torch.testing.assert_close(wrapped({"input": X})["output"], X, rtol=1e-4, atol=1e-4)
    assert torch.equal(norm.running_mean, before)
    assert not dropout.training


def test_in_a_policy_only_the_rest_is_trained_and_compiled_code_stays_flat():
    policy = policy_of(["frozen"])
    names = [n for n, p in policy.named_parameters() if p.requires_grad]
    assert names and all("trunk" not in n for n in names)
    policy.train()
    assert not policy.components["trunk"].module.module.training
    policy(observations())
    assert "linear" in policy.code
    policy.evaluate_actions(observations(), torch.zeros(5, dtype=torch.int64))[0].sum().backward()
    assert all(p.grad is None for p in policy.components["trunk"].parameters())


def test_a_frozen_normaliser_keeps_its_statistics():
    for wrappers, updates in ([], True), (["frozen"], False), ([{"type": "safe"}], True):
        policy = policy_of(wrappers, trunk={"type": "normalizer"})
        assert policy.has_statistics is updates
        policy.update_statistics(observations())
        assert bool(policy.components["trunk"].count) is updates
