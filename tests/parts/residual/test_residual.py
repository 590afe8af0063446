"""Residuals compute their formula, start where their paper starts them, and pass gradients to stream and branch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from policysmith.ops.init import initialize
from policysmith.registry import default_registry, part
from tests.reference.transformer import gtrxl_gate

D = 6
_RANDOM = torch.Generator().manual_seed(0)
X, Y = (torch.randn(3, 5, D, generator=_RANDOM) for _ in range(2))
NAMES = default_registry.names("residual")


def residual(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return part("residual", {"type": name, **options}).build(dim=D)


def filled(module: nn.Module, value: float) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)
    return module


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (residual("add"), X + Y),
        (residual("add", scale=0.5), X + 0.5 * Y),
        (residual("gated"), X + Y),
        (residual("gated", scale=0.5), X + 0.5 * Y),
        (filled(residual("gated", scale=0.5), 3.0), X + 1.5 * Y),
        (residual("layerscale"), X + 0.1 * Y),
        (residual("layerscale", initial=1e-5), X + 1e-5 * Y),
        (residual("rezero"), X),
        (filled(residual("rezero"), 2.0), X + 2 * Y),
    ],
)
def test_a_residual_is_its_formula(module: nn.Module, expected: Tensor):
    torch.testing.assert_close(module(X, Y), expected)


def test_layerscale_has_a_factor_for_each_feature():
    module = residual("layerscale")
    with torch.no_grad():
        module.scale.copy_(torch.arange(D))
    torch.testing.assert_close(module(X, Y), X + Y * torch.arange(D))


@pytest.mark.parametrize(
    ("name", "count"), [("add", 0), ("gated", 1), ("layerscale", D), ("rezero", 1), ("gtrxl", 6 * D * D + D)]
)
def test_parameters_are_those_of_the_paper(name, count):
    assert sum(p.numel() for p in residual(name).parameters()) == count


def test_the_gtrxl_gate_is_equation_7_in_values_and_gradients():
    fast, slow = residual("gtrxl").double(), residual("gtrxl").double()
    with torch.no_grad():
        for a, b in zip(fast.parameters(), slow.parameters(), strict=True):
            b.copy_(a)
    x, y = X.double().requires_grad_(), Y.double().requires_grad_()
    x2, y2 = X.double().requires_grad_(), Y.double().requires_grad_()
    found = fast(x, y)
    expected = torch.stack([torch.stack([gtrxl_gate(slow, a, b) for a, b in zip(*rows)]) for rows in zip(x2, y2)])  # noqa: B905
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    for a, b in zip((x, y, *fast.parameters()), (x2, y2, *slow.parameters()), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_the_bias_of_the_gtrxl_gate_starts_it_near_the_identity_and_survives_initialisation():
    distances = []
    for bias in (0.0, 2.0, 10.0):
        module = residual("gtrxl", bias=bias)
        initialize(module)
        assert torch.equal(module.update_bias, torch.full((D,), bias))
        distances.append((module(X, Y) - X).abs().mean().item())
    assert distances[0] > 2 * distances[1] > 100 * distances[2]


def test_the_branch_of_the_gtrxl_gate_passes_a_relu_unless_told():
    assert torch.equal(residual("gtrxl")(X, -Y.abs()), residual("gtrxl")(X, torch.zeros_like(Y)))
    linear = residual("gtrxl", activation="identity")
    assert not torch.equal(linear(X, -Y.abs()), linear(X, torch.zeros_like(Y)))


@pytest.mark.parametrize("name", NAMES)
def test_stream_branch_and_parameters_get_finite_gradients(name):
    module, x, y = residual(name), X.clone().requires_grad_(), Y.clone().requires_grad_()
    module(x, y).square().sum().backward()
    grads = [x.grad, *(p.grad for p in module.parameters())]
    assert all(g.isfinite().all() and g.any() for g in grads)
    assert y.grad.isfinite().all() and (name == "rezero" or y.grad.any())


@pytest.mark.parametrize("name", NAMES)
def test_a_residual_mixes_neither_rows_nor_steps_and_overwrites_nothing(name):
    module, x, y = residual(name), X.clone(), Y.clone()
    together = module(x, y)
    assert torch.equal(x, X) and torch.equal(y, Y)
    torch.testing.assert_close(module(X[1, 2], Y[1, 2]), together[1, 2])


@pytest.mark.parametrize("options", [{"type": "add", "scale": 0.0}, {"type": "layerscale", "initial": -0.1}])
def test_a_scale_is_positive(options):
    with pytest.raises(ValueError, match="must be > 0"):
        part("residual", options)
