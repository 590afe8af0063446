"""Frozen mixtures: stacked weights, equal outputs, no training."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from policysmith.ops import grouped_linear
from policysmith.parts.feedforward import MixtureOfExperts

from .test_mixture import EXPERTS, D, E, mixture


@pytest.mark.parametrize("expert", EXPERTS, ids=["mlp", "swiglu", "narrow"])
@pytest.mark.parametrize("implementation", ["auto", "dense", "gather", "sorted"])
@pytest.mark.parametrize(
    "limits", [{}, {("cpu", torch.float32): grouped_linear.GroupedLimits(10**9, 10**9)}], ids=["loop", "grouped"]
)
def test_outputs_equal_those_of_the_mixture(expert, implementation, limits, monkeypatch):
    monkeypatch.setattr(grouped_linear, "MEASURED_FASTER", limits)
    moe = mixture(torch.float32, expert=expert, implementation=implementation, shared_experts=1).eval()
    frozen = moe.frozen()
    for rows in (1, 2, 30):
        x = torch.randn(rows, D)
        torch.testing.assert_close(frozen(x), moe(x))


@pytest.mark.parametrize("router", ["soft", "task", {"type": "topk", "bias_speed": 0.1, "jitter": 0.2}])
def test_every_router_is_kept(router):
    moe = mixture(router=router).eval()
    x, task = torch.randn(6, 4, D).double(), torch.arange(6) % E
    torch.testing.assert_close(moe.frozen()(x, task=task), moe(x, task=task))


def test_dropout_and_jitter_are_off_in_a_copy_of_a_mixture_in_training():
    moe = mixture(expert={"type": "mlp", "dropout": 0.5}, router={"type": "topk", "jitter": 0.2}).train()
    frozen, x = moe.frozen(), torch.randn(6, D).double()
    assert moe.training
    assert torch.equal(frozen(x), frozen(x))
    torch.testing.assert_close(frozen(x), moe.eval()(x))


def test_it_refuses_training():
    frozen = mixture().frozen()
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not list(frozen.experts.parameters())
    with pytest.raises(RuntimeError, match="frozen experts are for inference"):
        frozen.train()
    assert not any(m.training for m in frozen.experts.modules())
    frozen.eval()


def test_a_gradient_passes_through_to_the_input():
    moe = mixture()
    x = torch.randn(6, D).double()
    grads = []
    for module in (moe, moe.frozen()):
        leaf = x.clone().requires_grad_()
        module(leaf).square().sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads)


def test_it_shares_nothing_with_the_mixture_and_leaves_it_as_it_was():
    moe, x = mixture(shared_experts=1), torch.randn(6, D).double()
    before, frozen = copy.deepcopy(moe.state_dict()), moe.frozen()
    expected = frozen(x)
    assert all(torch.equal(value, before[name]) for name, value in moe.state_dict().items())
    assert all(p.requires_grad for p in moe.parameters())
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.zero_()
    assert torch.equal(frozen(x), expected)


def test_nan_in_an_expert_reaches_only_rows_that_use_it():
    moe = mixture(torch.float32)
    with torch.no_grad():
        moe.experts[2].down.weight.fill_(float("nan"))
    x = torch.randn(30, D)
    used = moe.router(x).experts_NK.eq(2).any(-1)
    assert 0 < used.sum() < 30
    assert torch.equal(moe.frozen()(x).isnan().any(-1), used)


def test_copies_state_and_devices_work():
    moe, x = mixture(), torch.randn(6, D).double()
    frozen = moe.frozen()
    expected = frozen(x)
    for twin in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen)), frozen.frozen()):
        assert torch.equal(twin(x), expected)
    other = MixtureOfExperts(D, E).double().frozen()
    other.load_state_dict(frozen.state_dict())
    assert torch.equal(other(x), expected)
    assert frozen.to("meta")(x.to("meta")).is_meta
