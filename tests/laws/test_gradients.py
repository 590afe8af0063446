"""Law 3: gradients are finite, and every trainable parameter gets one."""

from __future__ import annotations

import torch

from .cases import every_case, model_of, results, tensors_of

ONE_KEY = "the first step of an episode sees one key, whose weight is 1 whatever the scores"
ZERO_STATE = "the first step of an episode has nothing to remember"


def of_part(reason: str, *names: str) -> dict[str, str]:
    return {f"graph_modules.part.{name}": reason for name in names}


KEYS_OF_TWO_LAYERS = of_part(ONE_KEY, *(f"blocks.{i}.attention.{n}.weight" for i in (0, 1) for n in ("query", "key")))

# case → parameters that get no gradient, with the reason.
WITHOUT: dict[str, dict[str, str]] = {
    "gru": of_part(ZERO_STATE, "weight_hh_l0"),
    "gru-1": of_part(ZERO_STATE, "weight_hh_l0", "weight_hh_l1"),
    "gtrxl": KEYS_OF_TWO_LAYERS,
    "lstm": of_part(ZERO_STATE, "weight_hh_l0"),
    "lstm-1": of_part(ZERO_STATE, "weight_hh_l0", "weight_hh_l1"),
    "lstm-2": of_part(ZERO_STATE, "weight_hh_l0", "weight_hh_l1"),
    "transformer_memory": KEYS_OF_TWO_LAYERS,
    "transformer_memory-1": of_part(ONE_KEY, "blocks.0.attention.query.up.weight", "blocks.0.attention.key.weight"),
}


@every_case
def test_every_parameter_gets_a_finite_gradient(case_id):
    model = model_of(case_id).train()
    torch.manual_seed(0)
    outputs = results(model(*tensors_of(case_id, batch=16)))
    loss = sum((o * torch.randn(o.shape)).sum() for o in outputs)
    if loss.requires_grad:
        loss.backward()
    learned = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    sizes = {n: 0.0 if grad is None else float(grad.abs().max()) for n, grad in learned.items()}
    expected = set(WITHOUT.get(case_id, ()))
    assert {n for n, size in sizes.items() if size == 0} <= expected
    # Of a softmax over one key some processors leave a rounding error of 1e-7 where others give 0.
    assert all(sizes[n] <= 1e-6 * max(sizes.values()) for n in expected)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@every_case
def test_every_float_input_gets_a_finite_gradient(case_id):
    model = model_of(case_id).train()
    inputs = [t.requires_grad_(t.is_floating_point()) for t in tensors_of(case_id, batch=8)]
    torch.manual_seed(0)
    outputs = results(model(*inputs))
    floats = [t for t in inputs if t.requires_grad]
    if floats:
        torch.autograd.backward([(o * torch.randn(o.shape)).sum() for o in outputs])
    assert all(t.grad is not None and t.grad.isfinite().all() and t.grad.any() for t in floats)


@every_case
def test_a_frozen_part_asks_for_no_gradient_and_passes_it_on(case_id):
    model = model_of(case_id).requires_grad_(False).eval()
    inputs = [t.requires_grad_(t.is_floating_point()) for t in tensors_of(case_id)]
    outputs = results(model(*inputs))
    assert all(o.requires_grad == any(t.requires_grad for t in inputs) for o in outputs)
