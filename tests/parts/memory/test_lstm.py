"""The LSTM: torch's weights and numbers, and one result by whichever way a sequence is computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policysmith.ops.init import initialize
from policysmith.parts import LSTM
from tests.reference.recurrent import slow_lstm, slow_unroll

from .ways import assert_close, every_way, force, outcome, sequence

SHAPES = [(1, True), (1, False), (3, True), (2, False)]
every_shape = pytest.mark.parametrize(("layers", "bias"), SHAPES)


def as_torch(twin: nn.LSTM):
    """`nn.LSTM` called as ours is: states batch first."""

    def unroll(x, state, first):
        y, (h, c) = twin(x, tuple(state[n].transpose(0, 1).contiguous() for n in ("h", "c")))
        return y, {"h": h.transpose(0, 1), "c": c.transpose(0, 1)}

    return unroll


@every_way
@every_shape
def test_without_resets_it_is_torchs_lstm_in_values_and_gradients(monkeypatch, way, layers, bias):
    ours = LSTM(5, 7, layers, bias=bias).double()
    twin = nn.LSTM(5, 7, layers, bias=bias, batch_first=True).double()
    twin.load_state_dict(ours.state_dict())
    force(monkeypatch, LSTM, way)
    x, state, _ = sequence(ours)
    expected = outcome(as_torch(twin), twin, x, state, None)
    assert_close(outcome(ours.unroll, ours, x, state, None), expected, 1e-12)


@every_shape
def test_weights_load_both_ways_and_have_torchs_names_order_and_start(layers, bias):
    torch.manual_seed(3)
    ours = LSTM(5, 7, layers, bias=bias)
    torch.manual_seed(3)
    twin = nn.LSTM(5, 7, layers, bias=bias)
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [(n, p.shape) for n, p in twin.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), twin.parameters(), strict=True))
    other = nn.LSTM(5, 7, layers, bias=bias)
    ours.load_state_dict(other.state_dict())
    twin.load_state_dict(ours.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), other.parameters(), strict=True))


@every_way
@pytest.mark.parametrize("chance", [0.0, 0.03, 0.3, 1.0])
@pytest.mark.parametrize("learned", [False, True])
def test_every_way_equals_the_slow_twin_with_resets(monkeypatch, way, chance, learned):
    module = LSTM(3, 4, 2, learned_initial_state=learned).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    given = sequence(module, batch=3, steps=20, chance=chance)
    expected = outcome(lambda *a: slow_unroll(slow_lstm, module, *a), module, *given)
    force(monkeypatch, LSTM, way)
    assert_close(outcome(module.unroll, module, *given), expected, 1e-12)


@every_way
def test_in_single_precision_every_way_is_as_near_to_the_truth(monkeypatch, way):
    module, exact = LSTM(16, 32), LSTM(16, 32).double()
    exact.load_state_dict(module.state_dict())
    x, state, first = sequence(module, batch=8, steps=64, chance=0.01)
    truth = outcome(exact.unroll, exact, x.double(), {n: t.double() for n, t in state.items()}, first)
    force(monkeypatch, LSTM, way)
    found = outcome(module.unroll, module, x, state, first)
    assert (found["y"] - truth["y"]).abs().max() < 1e-6
    assert_close({n: t.double() for n, t in found.items()}, truth, 1e-4)


@pytest.mark.parametrize(("resets", "calls"), [(0, 1), (1, 1), (3, 1), (4, 0), (40, 0)])
def test_torchs_kernel_runs_where_resets_are_rare(monkeypatch, resets, calls):
    module = LSTM(3, 4)
    x, state, _ = sequence(module, batch=8, steps=41)
    first = torch.zeros(8, 41, dtype=torch.bool)
    first[0, :resets] = True  # the one at step 0 costs nothing
    found = force(monkeypatch, LSTM, "chosen")
    module.unroll(x, state, first)
    assert len(found) == calls


def test_only_first_derivatives_are_promised_and_asking_for_more_says_so():
    module = LSTM(3, 4).double()
    x, state, first = sequence(module, chance=0.5)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(module.unroll(x, state, first)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_function_transforms_differentiate_a_sequence_at_will():
    module = LSTM(3, 4).double()
    x, state, first = sequence(module, batch=2, steps=3)

    def total(x):
        return module.unroll(x, state, first)[0].square().sum()

    expected = torch.autograd.grad(total(x.requires_grad_()), x)[0]
    torch.testing.assert_close(torch.func.grad(total)(x.detach()), expected)
    hessian = torch.func.jacrev(torch.func.grad(total))(x.detach())
    assert hessian.isfinite().all() and hessian.any()

    def alone(x, state, first):
        return module.unroll(x[None], {name: tensor[None] for name, tensor in state.items()}, first[None])[0]

    found = torch.vmap(alone)(x.detach(), state, first).squeeze(1)
    torch.testing.assert_close(found, module.unroll(x, state, first)[0])


def test_a_whole_sequence_compiles():
    module = LSTM(3, 4, 2).double()
    given = sequence(module, batch=2, steps=4, chance=0.4)
    torch._dynamo.reset()
    compiled = torch.compile(module.unroll, fullgraph=True, backend="aot_eager")
    assert_close(outcome(compiled, module, *given), outcome(module.unroll, module, *given), 1e-12)


@every_way
def test_frozen_weights_pass_gradients_on(monkeypatch, way):
    module = LSTM(3, 4, 2).double()
    given = sequence(module)
    expected = outcome(module.unroll, module, *given)
    force(monkeypatch, LSTM, way)
    found = outcome(module.requires_grad_(False).unroll, module, *given)
    assert torch.equal(found["gradient of weight_hh_l0"], torch.zeros(16, 4).double())
    torch.testing.assert_close(found["gradient of x"], expected["gradient of x"])


@every_way
def test_inference_mode_gives_the_same(monkeypatch, way):
    module = LSTM(3, 4, 2).double()
    given = sequence(module)
    expected = module.unroll(*given)
    force(monkeypatch, LSTM, way)
    with torch.inference_mode():
        torch.testing.assert_close(module.unroll(*given), expected)


@pytest.mark.parametrize("chance", [0.0, 0.5])
def test_under_autocast_state_and_outputs_keep_their_precision(chance):
    module = LSTM(3, 4)
    given = sequence(module, chance=chance)
    expected = module.unroll(*given)
    with torch.autocast("cpu", torch.bfloat16):
        y, after = module.unroll(*given)
        y_step, after_step = module(given[0][:, 0], given[1])
    assert {t.dtype for t in (y, *after.values(), *after_step.values())} == {torch.float32}
    assert y_step.dtype == torch.float32
    torch.testing.assert_close((y, after), expected, rtol=0.02, atol=0.02)
    assert not torch.equal(y, expected[0])
    y.sum().backward()


def test_by_role_each_matrix_is_orthogonal_and_biases_are_zero():
    module = LSTM(6, 8, 2)
    initialize(module)
    for name, parameter in module.named_parameters():
        if "weight" in name:
            torch.testing.assert_close(parameter.T @ parameter, torch.eye(parameter.shape[1]))
        else:
            assert not parameter.any()


@pytest.mark.parametrize("start", [lambda module: None, initialize, lambda m: initialize(m, nn.init.zeros_)])
def test_the_forget_bias_is_set_however_weights_start(start):
    module = LSTM(5, 3, 2, forget_bias=1.5)
    start(module)
    for layer in range(2):
        assert getattr(module, f"bias_ih_l{layer}")[3:6].tolist() == [1.5] * 3
    assert not (module.bias_ih_l0[:3] == 1.5).any()


def test_a_forget_bias_makes_it_remember():
    def kept(bias):
        module = LSTM(2, 3, forget_bias=bias)
        initialize(module, nn.init.zeros_)
        state = {n: torch.ones_like(t) for n, t in module.initial_state(1).items()}
        return module(torch.zeros(1, 2), state)[1]["c"]

    torch.testing.assert_close(kept(0.0), torch.full((1, 1, 3), 0.5))
    torch.testing.assert_close(kept(2.0), torch.full((1, 1, 3), 2.0).sigmoid())


def test_a_learned_initial_state_starts_at_zero_is_put_back_by_resets_and_learns():
    module = LSTM(3, 4, 2, learned_initial_state=True)
    initialize(module)
    assert not any(t.any() for t in module.initial_state(2).values())
    with torch.no_grad():
        for parameter in module.initial.values():
            parameter.copy_(torch.randn(4))
    initial = module.initial_state(5)
    assert initial["h"].shape == (5, 2, 4)
    assert torch.equal(initial["h"][3, 1], module.initial["h_l1"])
    assert torch.equal(initial["c"][3, 0], module.initial["c_l0"])
    x, state, _ = sequence(module, batch=1, steps=2)
    y, _ = module.unroll(x, state, torch.tensor([[False, True]]))
    fresh, _ = module(x[:, 1], module.initial_state(1))
    torch.testing.assert_close(y[:, 1], fresh)
    y[:, 1].sum().backward()
    assert all(p.grad.any() for p in module.initial.values())


def test_dropout_acts_between_layers_while_training():
    module = LSTM(3, 64, 2, dropout=0.5)
    x, state, first = sequence(module)
    for call in (lambda: module.unroll(x, state, first), lambda: module(x[:, 0], state)):
        (_, one), (_, other) = call(), call()
        assert torch.equal(one["h"][:, 0], other["h"][:, 0])
        assert not torch.equal(one["h"][:, 1], other["h"][:, 1])
        assert (one["h"] != 0).all()
    plain = LSTM(3, 64, 2).eval()
    plain.load_state_dict(module.eval().state_dict())
    assert torch.equal(module.unroll(x, state, first)[0], plain.unroll(x, state, first)[0])


def test_options_that_cannot_act_are_refused():
    with pytest.raises(ValueError, match=r"dropout=0.5 acts between layers, but num_layers=1"):
        LSTM(3, 4, dropout=0.5)
    with pytest.raises(ValueError, match=r"forget_bias=1 needs bias: true"):
        LSTM(3, 4, bias=False, forget_bias=1.0)


@every_way
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 1), (1, 20)])
def test_one_row_and_one_step_are_sequences_too(monkeypatch, way, batch, steps):
    module = LSTM(3, 4, 2).double()
    given = sequence(module, batch, steps, 0.4)
    expected = outcome(lambda *a: slow_unroll(slow_lstm, module, *a), module, *given)
    force(monkeypatch, LSTM, way)
    assert_close(outcome(module.unroll, module, *given), expected, 1e-12)
