"""Where weights start: by role, or by the initializer that a configuration names."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from policysmith.ops.init import ROLES, default_role, initialize, with_role
from policysmith.parts import MLP, Conv
from policysmith.policy import ActionHead, ValueHead
from policysmith.registry import part


def gain(weight: torch.Tensor) -> float:
    """The common singular value of an orthogonal matrix; fails if there is none."""
    values = torch.linalg.svdvals(weight.detach().flatten(1))
    torch.testing.assert_close(values, values[:1].expand_as(values), rtol=1e-3, atol=1e-6)
    return float(values[0])


def start(name: str, **options) -> torch.Tensor:
    """A large weight after an initializer."""
    torch.manual_seed(0)
    layer = nn.Linear(300, 200)
    initialize(layer, part("initializer", {"type": name, **options}).build())
    assert not layer.bias.any()
    return layer.weight.detach()


def initialized(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    initialize(module)
    return module


def test_hidden_layers_are_orthogonal_with_gain_root_two_and_zero_biases():
    mlp = initialized(MLP(20, [16, 8]))
    for layer in (mlp[0], mlp[2]):
        assert gain(layer.weight) == pytest.approx(math.sqrt(2), rel=1e-3)
        assert not layer.bias.any()


def test_convolutions_are_hidden_layers():
    encoder = initialized(Conv((3, 8, 8), [4], features=5))
    assert gain(encoder[0].weight) == pytest.approx(math.sqrt(2), rel=1e-3)
    assert gain(encoder[-2].weight) == pytest.approx(math.sqrt(2), rel=1e-3)


@pytest.mark.parametrize("hidden", [[], [9]])
def test_the_last_layer_of_a_policy_starts_at_a_hundredth(hidden):
    head = initialized(ActionHead(12, ((5, 0),), hidden))
    assert gain(head.out.weight) == pytest.approx(0.01, rel=1e-3)
    assert not head.out.bias.any()


@pytest.mark.parametrize("hidden", [[], [9]])
def test_the_last_layer_of_a_critic_starts_at_one(hidden):
    head = initialized(ValueHead(12, hidden))
    assert gain(head.out.weight) == pytest.approx(1.0, rel=1e-3)
    if hidden:
        assert gain(head.body[0].weight) == pytest.approx(math.sqrt(2), rel=1e-3)


def test_the_free_deviation_of_a_policy_is_left_alone():
    head = initialized(ActionHead(12, ((2, 2),), initial_std=0.5))
    torch.testing.assert_close(head.log_std.exp(), torch.full((2,), 0.5))


def test_embeddings_are_standard_normal_and_padding_stays_zero():
    table = initialized(nn.Embedding(500, 40, padding_idx=3))
    assert float(table.weight.detach().std()) == pytest.approx(1.0, rel=0.05)
    assert not table.weight[3].any()


def test_recurrent_weights_are_orthogonal():
    cell = initialized(nn.GRUCell(7, 6))
    assert not cell.bias_hh.any()
    for block in cell.weight_hh.chunk(3):
        assert torch.linalg.svdvals(block.detach()).max() < 1.01
    assert default_role(nn.LSTM(3, 4)) == "recurrent"


def test_a_router_starts_small():
    router = initialized(with_role(nn.Linear(500, 40), "router"))
    assert float(router.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_norms_keep_torchs_start():
    for norm in (nn.LayerNorm(5), nn.BatchNorm1d(5), nn.GroupNorm(1, 5)):
        initialize(norm)
        assert (norm.weight == 1).all()
        assert default_role(norm) is None


def test_an_unknown_role_is_refused_with_the_list():
    with pytest.raises(ValueError, match=r"unknown role 'polcy'.*policy_out"):
        with_role(nn.Linear(2, 2), "polcy")


def test_every_role_gives_finite_weights():
    for role in ROLES:
        layer = initialized(with_role(nn.Linear(6, 5), role))
        assert layer.weight.isfinite().all() and layer.weight.any()


def test_a_bilinear_layer_is_initialised():
    layer = nn.Bilinear(3, 4, 5)
    before = layer.weight.detach().clone()
    initialize(layer)
    assert not torch.equal(layer.weight, before)
    assert gain(layer.weight) == pytest.approx(math.sqrt(2), rel=1e-3)


def test_initialisation_records_no_gradient():
    layer = initialized(nn.Linear(3, 4))
    assert layer.weight.is_leaf and layer.weight.requires_grad and layer.weight.grad_fn is None


def test_orthogonal():
    assert gain(start("orthogonal")) == pytest.approx(math.sqrt(2), rel=1e-3)
    assert gain(start("orthogonal", gain=0.5)) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "deviation"),
    [
        ("xavier_uniform", {}, math.sqrt(2 / 500)),
        ("xavier_normal", {"gain": 2.0}, 2 * math.sqrt(2 / 500)),
        ("kaiming_uniform", {}, math.sqrt(2 / 300)),
        ("kaiming_uniform", {"mode": "fan_out"}, math.sqrt(2 / 200)),
        ("kaiming_normal", {"nonlinearity": "linear"}, math.sqrt(1 / 300)),
        ("kaiming_normal", {"nonlinearity": "tanh"}, 5 / 3 * math.sqrt(1 / 300)),
        ("normal", {}, 0.02),
        ("normal", {"std": 0.3}, 0.3),
    ],
)
def test_a_random_initializer_has_its_deviation(name, options, deviation):
    weight = start(name, **options)
    assert float(weight.std()) == pytest.approx(deviation, rel=0.02)
    assert float(weight.mean()) == pytest.approx(0, abs=deviation / 50)


def test_normal_has_its_mean():
    assert float(start("normal", mean=2.0).mean()) == pytest.approx(2.0, rel=1e-3)


def test_uniform_initializers_are_bounded():
    assert float(start("xavier_uniform").abs().max()) <= math.sqrt(6 / 500) * 1.0001


def test_constant():
    assert (start("constant", value=0.25) == 0.25).all()
    assert not start("constant").any()


def test_an_initializer_goes_before_every_role():
    head = ActionHead(12, ((5, 0),), [9])
    initialize(head, part("initializer", {"type": "constant", "value": 0.5}).build())
    assert (head.out.weight == 0.5).all()
    assert (head.body[0].weight == 0.5).all()
