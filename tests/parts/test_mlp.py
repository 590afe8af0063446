"""Dense networks and heads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policysmith.parts import MLP
from policysmith.policy import ActionHead, ValueHead
from policysmith.registry import part


def kinds(module: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in module]


def test_every_width_is_a_linear_layer_and_an_activation():
    mlp = MLP(5, [7, 3], "relu")
    assert kinds(mlp) == ["Linear", "ReLU", "Linear", "ReLU"]
    assert [(m.in_features, m.out_features) for m in mlp if isinstance(m, nn.Linear)] == [(5, 7), (7, 3)]
    assert mlp(torch.zeros(2, 6, 5)).shape == (2, 6, 3)


def test_out_features_is_a_plain_linear_layer_at_the_end():
    mlp = MLP(5, [7], out_features=2)
    assert kinds(mlp) == ["Linear", "Tanh", "Linear"]
    assert mlp(torch.zeros(3, 5)).shape == (3, 2)
    assert kinds(MLP(5, [], out_features=2)) == ["Linear"]


def test_norm_comes_before_and_dropout_after_the_activation():
    mlp = MLP(5, [7], part("activation", "silu"), part("norm", "layer"), 0.25)
    assert kinds(mlp) == ["Linear", "LayerNorm", "SiLU", "Dropout"]
    assert mlp[1].normalized_shape == (7,)
    assert mlp[3].p == 0.25


def test_every_layer_has_an_activation_of_its_own():
    mlp = MLP(5, [7, 7], "tanh")
    assert mlp[1] is not mlp[3]


def test_without_layers_it_is_the_identity():
    x = torch.randn(3, 5)
    assert torch.equal(MLP(5, [])(x), x)


@pytest.mark.parametrize("hidden", [[], [8]])
def test_a_value_head_gives_one_number_a_row(hidden):
    assert ValueHead(5, hidden)(torch.zeros(3, 5)).shape == (3,)
    assert ValueHead(5, hidden)(torch.zeros(2, 3, 5)).shape == (2, 3)


@pytest.mark.parametrize("hidden", [[], [8]])
def test_an_action_head_gives_the_parameters_of_each_leaf_in_turn(hidden):
    head = ActionHead(5, ((2, 2), (3, 0), (1, 1)), hidden, initial_std=0.5)
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias.copy_(torch.arange(6.0))
        head.log_std.copy_(torch.tensor([10.0, 11.0, 12.0]))
    assert head(torch.zeros(1, 5)).tolist() == [[0, 1, 10, 11, 2, 3, 4, 5, 12]]


def test_an_action_head_without_free_parameters_is_linear():
    head = ActionHead(5, ((3, 0),))
    x = torch.randn(4, 5)
    assert head.log_std is None
    assert torch.equal(head(x), head.out(x))
