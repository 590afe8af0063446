"""minGRU: a scan that equals stepping, states that stay positive, and memories of any length."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policysmith.ops.init import initialize
from policysmith.parts import MinGRU
from tests.reference.recurrent import slow_mingru, slow_unroll

from .ways import assert_close, force, outcome, sequence

every_way = pytest.mark.parametrize("way", ["chosen", "step by step"])  # the latter: pairs of steps combined


@every_way
@pytest.mark.parametrize("chance", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("learned", [False, True])
def test_a_scan_equals_the_slow_twin(monkeypatch, way, chance, learned):
    module = MinGRU(3, 4, 2, learned_initial_state=learned).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    given = sequence(module, batch=3, steps=21, chance=chance)
    expected = outcome(lambda *a: slow_unroll(slow_mingru, module, *a), module, *given)
    force(monkeypatch, MinGRU, way)
    assert_close(outcome(module.unroll, module, *given), expected, 1e-12)


@every_way
def test_what_came_before_a_reset_is_gone_even_a_nan(monkeypatch, way):
    module = MinGRU(3, 4)
    force(monkeypatch, MinGRU, way)
    x, state, _ = sequence(module, batch=2, steps=8)
    first = torch.zeros(2, 8, dtype=torch.bool)
    first[:, 5] = True
    expected, after = module.unroll(x, state, first)
    x[0, :5], state["h"][1] = float("nan"), float("inf")
    y, spoilt = module.unroll(x, state, first)
    assert not y[:, :5].isfinite().any()
    assert torch.equal(y[:, 5:], expected[:, 5:])
    assert torch.equal(spoilt["h"], after["h"])


@every_way
@pytest.mark.parametrize("forget_bias", [-60.0, 0.0, 60.0])
def test_thousands_of_steps_neither_overflow_nor_vanish(monkeypatch, way, forget_bias):
    module = MinGRU(3, 4, forget_bias=forget_bias)
    force(monkeypatch, MinGRU, way)
    x, state, _ = sequence(module, batch=1, steps=4097)
    x.requires_grad_()
    y, _ = module.unroll(x, state, None)
    y.square().mean().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
    if forget_bias == 60:
        torch.testing.assert_close(y[:, -1], state["h"][:, 0])


def test_states_are_positive_and_the_candidate_is_continuous():
    module = MinGRU(1, 1)
    with torch.no_grad():
        module.weight_l0.copy_(torch.tensor([[0.0], [1.0]]))
        module.bias_l0.copy_(torch.tensor([60.0, 0.0]))  # z = 1: the candidate itself
    x = torch.tensor([-100.0, -1.0, -1e-6, 0.0, 1e-6, 2.0]).unsqueeze(1)
    h = module(x, module.initial_state(6))[0].squeeze(1)
    torch.testing.assert_close(h, torch.tensor([0.0, 0.26894142, 0.5, 0.5, 0.5, 2.5]))


def test_a_whole_sequence_compiles_and_transforms():
    module = MinGRU(3, 4, 2).double()
    x, state, first = sequence(module, batch=2, steps=5, chance=0.4)
    expected = outcome(module.unroll, module, x, state, first)
    torch._dynamo.reset()
    compiled = torch.compile(module.unroll, fullgraph=True, backend="aot_eager")
    assert_close(outcome(compiled, module, x, state, first), expected, 1e-12)
    hessian = torch.func.jacrev(torch.func.grad(lambda x: module.unroll(x, state, first)[0].square().sum()))(x)
    assert hessian.isfinite().all() and hessian.any()


def test_by_role_weights_are_orthogonal_and_only_the_forget_bias_is_not_zero():
    module = MinGRU(6, 8, forget_bias=2.0)
    initialize(module)
    torch.testing.assert_close(module.weight_l0.T @ module.weight_l0, torch.eye(6))
    assert module.bias_l0.tolist() == [-2.0] * 8 + [0.0] * 8


def test_a_forget_bias_makes_it_remember():
    module = MinGRU(2, 3, forget_bias=2.0)
    initialize(module, nn.init.zeros_)
    kept = module(torch.zeros(1, 2), {"h": torch.full((1, 1, 3), 4.0)})[0]
    gate = torch.tensor(2.0).sigmoid()
    torch.testing.assert_close(kept, (gate * 4 + (1 - gate) * 0.5).expand(1, 3))
