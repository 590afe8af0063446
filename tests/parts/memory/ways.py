"""The ways a recurrent layer may take through a sequence, forced one at a time, and what comes out of them."""

import importlib

import pytest
import torch

from policysmith.ops import scan
from policysmith.parts.memory import sequences

WAYS = ("chosen", "kernel", "hand-written gradient", "step by step")
every_way = pytest.mark.parametrize("way", WAYS)


def force(monkeypatch, cls, way):
    """Make `cls` take one way; `calls` counts those of torch's kernel."""
    file = importlib.import_module(cls.__module__)
    calls = []
    if hasattr(file, "by_kernel"):
        monkeypatch.setattr(file, "by_kernel", lambda *given: calls.append(1) or sequences.by_kernel(*given))
        if way in ("kernel", "hand-written gradient"):
            monkeypatch.setattr(file, "worth_splitting", lambda *_: way == "kernel")
    if way == "step by step":
        for place in (file, scan):
            if hasattr(place, "runs_eagerly"):
                monkeypatch.setattr(place, "runs_eagerly", lambda *_: False)
    return calls


def outcome(unroll, module, x, state, first):
    """Outputs, final state, and the gradients of inputs, weights and state."""
    x = x.clone().requires_grad_()
    state = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
    module.zero_grad()
    y, after = unroll(x, state, first)
    results = {"y": y, **{f"final {name}": tensor for name, tensor in after.items()}}
    weighted = [t * torch.linspace(-1, 2, t.numel()).to(t).view(t.shape) for t in results.values()]
    torch.autograd.backward([t.sum() for t in weighted])
    gradients = {"x": x, **{f"initial {name}": t for name, t in state.items()}, **dict(module.named_parameters())}
    return {n: t.detach() for n, t in results.items()} | {
        f"gradient of {n}": torch.zeros_like(t) if t.grad is None else t.grad for n, t in gradients.items()
    }


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def sequence(module, batch=4, steps=12, chance=0.2, seed=0):
    """Random inputs, state and beginnings of episodes, of the module's type of numbers."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(module.parameters()).dtype
    x = torch.randn(batch, steps, module.in_features, generator=generator, dtype=dtype)
    state = {n: torch.randn(t.shape, generator=generator, dtype=dtype) for n, t in module.initial_state(batch).items()}
    return x, state, torch.rand(batch, steps, generator=generator) < chance
