"""Losses that even out the load, in closed form, and the statistics beside them."""

from __future__ import annotations

import math

import pytest
import torch

from policysmith.ops.balance import add_loss, add_statistics, balance_loss, expert_load, z_loss

E = 8


def test_load_is_the_share_of_choices():
    load = expert_load(torch.tensor([[0, 2], [0, 1], [0, 2]]), 4)
    torch.testing.assert_close(load, torch.tensor([3.0, 1.0, 2.0, 0.0]) / 6)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_even_routing_costs_one(k):
    ids = torch.arange(E * k).reshape(E, k) % E
    probs = torch.full((E, E), 1 / E)
    assert balance_loss(probs, expert_load(ids, E)).item() == pytest.approx(1)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_collapse_on_k_experts_costs_their_number_over_k(k):
    """All rows on one expert cost E, the most there is."""
    ids = torch.arange(k).expand(5, k)
    probs = torch.zeros(5, E)
    probs[:, :k] = 1 / k
    assert balance_loss(probs, expert_load(ids, E)).item() == pytest.approx(E / k)


def test_the_gradient_of_balance_pushes_away_from_crowded_experts():
    logits = torch.randn(64, E, requires_grad=True)
    probs = logits.softmax(-1)
    ids = torch.zeros(64, 1, dtype=torch.int64)
    balance_loss(probs, expert_load(ids, E)).backward()
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 1:] < 0).all()


def test_z_loss_is_the_mean_squared_log_partition():
    assert z_loss(torch.zeros(5, E)).item() == pytest.approx(math.log(E) ** 2)
    assert z_loss(torch.full((5, E), -math.log(E))).item() == pytest.approx(0, abs=1e-12)
    logits = torch.randn(5, E)
    assert z_loss(logits).item() == pytest.approx((logits.exp().sum(-1).log() ** 2).mean().item(), rel=1e-5)


def test_without_rows_everything_is_a_finite_zero():
    load = expert_load(torch.zeros(0, 2, dtype=torch.int64), E)
    assert not load.any()
    assert balance_loss(torch.zeros(0, E), load).item() == 0
    assert z_loss(torch.zeros(0, E)).item() == 0
    aux = {}
    add_statistics(aux, load, torch.zeros(0, E))
    assert all(value.isfinite().all() for value in aux.values())


def test_losses_of_layers_sum():
    aux = {}
    add_loss(aux, "x", torch.tensor(2.0))
    add_loss(aux, "x", torch.tensor(3.0))
    assert aux["x"].item() == 5


def test_statistics_of_layers_keep_each_load_and_average_the_rest():
    aux = {}
    even, crowded = torch.full((4,), 0.25), torch.tensor([1.0, 0.0])
    add_statistics(aux, even, torch.full((3, 4), 0.25))
    add_statistics(aux, crowded, torch.tensor([[1.0, 0.0]]))
    add_statistics(aux, crowded)
    assert torch.equal(aux["moe/load"][0], even)
    assert torch.equal(aux["moe/load"][1:, :2], crowded.expand(2, 2))
    assert aux["moe/load"][1:, 2:].isnan().all()
    assert aux["moe/dead"].item() == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert aux["moe/entropy"].item() == pytest.approx(math.log(4) / 3)


def test_statistics_carry_no_gradient():
    aux = {}
    add_statistics(aux, torch.full((4,), 0.25), torch.randn(3, 4, requires_grad=True).softmax(-1))
    assert aux and not any(value.requires_grad for value in aux.values())
