"""Two layers around an activation, plain and gated."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from policysmith.ops.init import initialize
from policysmith.parts.feedforward import FeedForward, GatedFeedForward
from policysmith.registry import part

TYPES = ["mlp", "swiglu", "geglu", "reglu"]
every_type = pytest.mark.parametrize("name", TYPES)
D = 12


def build(name: str, **options):
    return part("feedforward", {"type": name, **options}).build(dim=D)


@pytest.mark.parametrize(
    ("activation", "function"),
    [("gelu", F.gelu), ("relu", F.relu), ("silu", F.silu), ("relu2", lambda x: F.relu(x) ** 2)],
)
def test_mlp_is_two_linear_layers_around_the_activation(activation, function):
    module, x = FeedForward(D, 20, activation), torch.randn(3, D)
    expected = function(x @ module.up.weight.T + module.up.bias) @ module.down.weight.T + module.down.bias
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(("name", "function"), [("swiglu", F.silu), ("geglu", F.gelu), ("reglu", F.relu)])
def test_gated_types_multiply_the_activated_half_with_the_other(name, function):
    module, x = build(name, hidden=20), torch.randn(3, D)
    w, v = module.up.weight.split(20)
    torch.testing.assert_close(module(x), (function(x @ w.T) * (x @ v.T)) @ module.down.weight.T)
    assert module.up.bias is None
    assert build(name, hidden=20, bias=True).up.bias.shape == (40,)


def test_default_widths_are_four_times_and_eight_thirds():
    assert FeedForward(D).down.in_features == 4 * D
    assert [GatedFeedForward(dim).down.in_features for dim in (1, 3, 256, 768)] == [8, 8, 688, 2048]


def test_parameters_of_the_plain_type_are_those_of_the_closed_form():
    assert sum(p.numel() for p in FeedForward(256).parameters()) == 8 * 256**2 + 5 * 256


@every_type
def test_any_leading_dimensions_pass(name):
    module, x = build(name), torch.randn(2, 3, 4, D)
    y = module(x)
    assert y.shape == x.shape
    torch.testing.assert_close(module(x[1, 2, 3]), y[1, 2, 3])
    assert module(x[:0]).shape == (0, 3, 4, D)


@every_type
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_pass(name, dtype):
    module, x = build(name), torch.randn(3, D)
    y = copy.deepcopy(module).to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), module(x), rtol=0.1, atol=0.05)


@every_type
def test_dropout_drops_in_training_only(name):
    module, x = build(name, dropout=0.5), torch.randn(3, D)
    module.eval()
    assert torch.equal(module(x), module(x))
    module.train()
    assert not torch.equal(module(x), module(x))


@every_type
def test_the_sink_and_the_task_are_left_alone(name):
    aux = {}
    x = torch.randn(3, D)
    module = build(name)
    assert torch.equal(module(x, aux, torch.zeros(3)), module(x))
    assert aux == {}


@every_type
def test_layers_start_orthogonal_of_gain_one(name):
    module = build(name, bias=True)
    initialize(module)
    for layer in (module.up, module.down):
        w = layer.weight if layer.weight.shape[0] < layer.weight.shape[1] else layer.weight.T
        torch.testing.assert_close(w @ w.T, torch.eye(len(w)), rtol=0, atol=1e-4)
        assert not layer.bias.any()


@every_type
def test_copies_compile_and_export(name):
    module, x = build(name), torch.randn(3, D)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), module(x))
    torch.testing.assert_close(torch.compile(module, backend="eager", fullgraph=True)(x), module(x))
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))


@every_type
def test_it_is_causal(name):
    assert part("feedforward", name).entry.traits["causal"] is True
