"""Dense layers with shortcuts."""

from __future__ import annotations

import torch
from torch import nn

from policysmith.parts.residual_mlp import ResidualMLP


def test_every_layer_after_the_first_is_added_to_what_it_reads():
    torch.manual_seed(0)
    module, x = ResidualMLP(5, 6, 3, "relu"), torch.randn(4, 5)
    y = module.enter[0](x).relu()
    for layer in module.layers:
        y = y + layer[0](y).relu()
    torch.testing.assert_close(module(x), y)
    assert module(torch.zeros(2, 3, 5)).shape == (2, 3, 6)


def test_layers_are_made_like_those_of_an_mlp():
    module = ResidualMLP(5, 6, 2, "silu", "layer", 0.25)
    for layers in (module.enter, module.layers[0]):
        assert [type(m) for m in layers] == [nn.Linear, nn.LayerNorm, nn.SiLU, nn.Dropout]
    assert [type(m) for m in ResidualMLP(5, 6, 1).enter] == [nn.Linear, nn.Tanh]
    assert len(ResidualMLP(5, 6, 1).layers) == 0
