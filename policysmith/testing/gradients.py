"""Law 3: gradients are finite, and every trainable parameter gets one."""

from __future__ import annotations

import torch

from policysmith.testing.case import PART, Subject, require, tuple_of

__all__ = ["inputs_get_gradients", "parameters_get_gradients", "what_is_frozen_asks_for_none"]

# Of a softmax over one key some processors leave a rounding error of 1e-7 where others give 0.
ROUNDING = 1e-6


def parameters_get_gradients(subject: Subject) -> None:
    """Each parameter gets one that is not 0, but for those that the case names with a reason."""
    model = subject.model().train()
    torch.manual_seed(0)
    loss = [(o * torch.randn(o.shape)).sum() for o in tuple_of(model(*subject.tensors(16))) if o.requires_grad]
    if loss:
        torch.autograd.backward(loss)
    learned = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    infinite = [n for n, grad in learned.items() if grad is not None and not grad.isfinite().all()]
    require(not infinite, f"gradients that are not finite: {infinite}")
    sizes = {n: 0.0 if grad is None else float(grad.abs().max()) for n, grad in learned.items()}
    excused = {f"graph_modules.{PART}.{n}" for n in subject.case.without_gradient}
    idle = {n for n, size in sizes.items() if size == 0} - excused
    require(not idle, f"no gradient reaches {sorted(idle)}")
    busy = [n for n in excused if sizes[n] > ROUNDING * max(sizes.values())]
    require(not busy, f"a gradient reaches {busy}, of which the case says that none does")


def inputs_get_gradients(subject: Subject) -> None:
    """Each input of floats gets a finite gradient that is not 0."""
    model, inputs = subject.model().train(), subject.leaves(8)
    torch.manual_seed(0)
    outputs = tuple_of(model(*inputs))
    floats = [t for t in inputs if t.requires_grad]
    if floats:
        torch.autograd.backward([(o * torch.randn(o.shape)).sum() for o in outputs])
    for index, tensor in enumerate(floats):
        good = tensor.grad is not None and bool(tensor.grad.isfinite().all()) and bool(tensor.grad.any())
        require(good, f"input {index} gets the gradient {tensor.grad}")


def what_is_frozen_asks_for_none(subject: Subject) -> None:
    """Without parameters that learn, an output asks for a gradient exactly if an input does."""
    model, inputs = subject.model().requires_grad_(False).eval(), subject.leaves(3)
    wanted = any(t.requires_grad for t in inputs)
    found = [o.requires_grad for o in tuple_of(model(*inputs))]
    require(all(f == wanted for f in found), f"frozen, its outputs ask for gradients: {found}")
