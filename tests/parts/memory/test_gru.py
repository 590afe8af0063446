"""The GRU: torch's weights and numbers, and one result by whichever way a sequence is computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policysmith.ops.init import initialize
from policysmith.ops.resets import Resets
from policysmith.parts import GRU
from policysmith.parts.memory.sequences import by_kernel, step_by_step
from tests.reference.recurrent import slow_gru, slow_unroll

from .ways import assert_close, force, outcome, sequence

every_way = pytest.mark.parametrize("way", ["chosen", "step by step"])
every_shape = pytest.mark.parametrize(("layers", "bias"), [(1, True), (1, False), (3, True), (2, False)])


def as_torch(twin: nn.GRU):
    """`nn.GRU` called as ours is: states batch first."""

    def unroll(x, state, first):
        y, h = twin(x, state["h"].transpose(0, 1).contiguous())
        return y, {"h": h.transpose(0, 1)}

    return unroll


@every_way
@every_shape
def test_without_resets_it_is_torchs_gru_in_values_and_gradients(monkeypatch, way, layers, bias):
    ours = GRU(5, 7, layers, bias=bias).double()
    twin = nn.GRU(5, 7, layers, bias=bias, batch_first=True).double()
    twin.load_state_dict(ours.state_dict())
    force(monkeypatch, GRU, way)
    x, state, _ = sequence(ours)
    expected = outcome(as_torch(twin), twin, x, state, None)
    assert_close(outcome(ours.unroll, ours, x, state, None), expected, 1e-12)


@every_shape
def test_weights_load_both_ways_and_have_torchs_names_order_and_start(layers, bias):
    torch.manual_seed(3)
    ours = GRU(5, 7, layers, bias=bias)
    torch.manual_seed(3)
    twin = nn.GRU(5, 7, layers, bias=bias)
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [(n, p.shape) for n, p in twin.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), twin.parameters(), strict=True))
    other = nn.GRU(5, 7, layers, bias=bias)
    ours.load_state_dict(other.state_dict())
    twin.load_state_dict(ours.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), other.parameters(), strict=True))


@every_way
@pytest.mark.parametrize("chance", [0.0, 0.03, 0.3, 1.0])
@pytest.mark.parametrize("learned", [False, True])
def test_every_way_equals_the_slow_twin_with_resets(monkeypatch, way, chance, learned):
    module = GRU(3, 4, 2, learned_initial_state=learned).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    given = sequence(module, batch=3, steps=20, chance=chance)
    expected = outcome(lambda *a: slow_unroll(slow_gru, module, *a), module, *given)
    force(monkeypatch, GRU, way)
    assert_close(outcome(module.unroll, module, *given), expected, 1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chance", [0.0, 0.2])
def test_torchs_kernel_between_resets_equals_step_by_step(bias, chance):
    """Other devices than a CPU take it where resets are rare."""
    module = GRU(3, 4, bias=bias).double()
    x, state, first = sequence(module, chance=chance)
    initial = (torch.randn(1, 4).double(),)
    given = (x.transpose(0, 1), (state["h"][:, 0],), initial, module._weights(0), Resets.of(first))
    torch.testing.assert_close(by_kernel(torch.gru, *given), step_by_step(module._step, *given))


@every_way
def test_in_single_precision_every_way_is_as_near_to_the_truth(monkeypatch, way):
    module, exact = GRU(16, 32), GRU(16, 32).double()
    exact.load_state_dict(module.state_dict())
    x, state, first = sequence(module, batch=8, steps=64, chance=0.01)
    truth = outcome(exact.unroll, exact, x.double(), {n: t.double() for n, t in state.items()}, first)
    force(monkeypatch, GRU, way)
    found = outcome(module.unroll, module, x, state, first)
    assert (found["y"] - truth["y"]).abs().max() < 1e-6
    assert_close({n: t.double() for n, t in found.items()}, truth, 1e-4)


def test_a_whole_sequence_compiles_and_transforms():
    module = GRU(3, 4, 2).double()
    x, state, first = sequence(module, batch=2, steps=4, chance=0.4)
    torch._dynamo.reset()
    compiled = torch.compile(module.unroll, fullgraph=True, backend="aot_eager")
    expected = outcome(module.unroll, module, x, state, first)
    assert_close(outcome(compiled, module, x, state, first), expected, 1e-12)
    hessian = torch.func.jacrev(torch.func.grad(lambda x: module.unroll(x, state, first)[0].square().sum()))(x)
    assert hessian.isfinite().all() and hessian.any()


@every_way
def test_frozen_weights_pass_gradients_on(monkeypatch, way):
    module = GRU(3, 4, 2).double()
    given = sequence(module)
    expected = outcome(module.unroll, module, *given)
    force(monkeypatch, GRU, way)
    found = outcome(module.requires_grad_(False).unroll, module, *given)
    assert not found["gradient of weight_hh_l0"].any()
    torch.testing.assert_close(found["gradient of x"], expected["gradient of x"])


def test_under_autocast_state_and_outputs_keep_their_precision():
    module = GRU(3, 4)
    given = sequence(module)
    expected = module.unroll(*given)
    with torch.autocast("cpu", torch.bfloat16):
        y, after = module.unroll(*given)
        y_step, after_step = module(given[0][:, 0], given[1])
    assert {t.dtype for t in (y, y_step, *after.values(), *after_step.values())} == {torch.float32}
    torch.testing.assert_close((y, after), expected, rtol=0.02, atol=0.02)
    y.sum().backward()


def test_by_role_each_matrix_is_orthogonal_and_only_the_forget_bias_is_not_zero():
    module = GRU(6, 8, 2, forget_bias=1.0)
    initialize(module)
    for name, parameter in module.named_parameters():
        if "weight" in name:
            torch.testing.assert_close(parameter.T @ parameter, torch.eye(parameter.shape[1]))
        elif "bias_ih" in name:
            assert parameter.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 8
        else:
            assert not parameter.any()


def test_a_forget_bias_makes_it_remember():
    module = GRU(2, 3, forget_bias=2.0)
    initialize(module, nn.init.zeros_)
    kept = module(torch.zeros(1, 2), {"h": torch.ones(1, 1, 3)})[0]
    torch.testing.assert_close(kept, torch.full((1, 3), 2.0).sigmoid())


def test_a_learned_initial_state_learns_from_resets():
    module = GRU(3, 4, learned_initial_state=True)
    x, state, _ = sequence(module, batch=1, steps=2)
    module.unroll(x, state, torch.tensor([[False, True]]))[0][:, 1].sum().backward()
    assert module.initial["h_l0"].grad.any()
