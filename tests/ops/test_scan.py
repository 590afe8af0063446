"""The linear scan: two ways, one result, and no trace of what a reset cut off."""

from __future__ import annotations

import pytest
import torch

from policysmith.ops import scan
from policysmith.ops.resets import Resets
from policysmith.ops.scan import linear_scan

every_way = pytest.mark.parametrize("eager", [True, False], ids=["in turn", "in pairs"])


def slow_scan(decay, add, start, initial, first):
    rows = []
    for row in range(start.shape[0]):
        h, states = start[row], []
        for t in range(len(decay)):
            if first is not None and t and first[row, t]:
                h = initial[0]
            h = decay[t, row] * h + add[t, row]
            states.append(h)
        rows.append(torch.stack(states))
    return torch.stack(rows, 1)


def numbers(steps, batch=3, size=2):
    generator = torch.Generator().manual_seed(steps)
    shapes = (steps, batch, size), (steps, batch, size), (batch, size), (1, size)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def gradients(function, tensors):
    leaves = [t.clone().requires_grad_() for t in tensors]
    h = function(*leaves)
    (h * torch.linspace(-1, 2, h.numel()).to(h).view(h.shape)).sum().backward()
    return [h.detach(), *(torch.zeros_like(t) if t.grad is None else t.grad for t in leaves)]


@every_way
@pytest.mark.parametrize("steps", [*range(1, 10), 16, 31])
@pytest.mark.parametrize("chance", [None, 0.0, 0.3, 1.0])
def test_a_scan_equals_its_definition(monkeypatch, eager, steps, chance):
    tensors = numbers(steps)
    first = None if chance is None else torch.rand(3, steps, generator=torch.Generator().manual_seed(9)) < chance
    expected = gradients(lambda *t: slow_scan(*t, first), tensors)
    monkeypatch.setattr(scan, "runs_eagerly", lambda *_: eager)
    found = gradients(lambda *t: linear_scan(*t, Resets.of(first)), tensors)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@every_way
@pytest.mark.parametrize("cut", range(1, 13))
def test_nothing_leaks_through_a_reset(monkeypatch, eager, cut):
    """Neither values nor gradients, wherever the reset falls among the pairs."""
    monkeypatch.setattr(scan, "runs_eagerly", lambda *_: eager)
    decay, add, start, initial = numbers(13)
    first = torch.zeros(3, 13, dtype=torch.bool)
    first[:, cut] = True
    expected = linear_scan(decay, add, start, initial, Resets.of(first))
    decay[:cut], add[:cut], start[:] = float("nan"), float("inf"), float("nan")
    decay.requires_grad_()
    found = linear_scan(decay, add, start, initial, Resets.of(first))
    assert torch.equal(found[cut:], expected[cut:])
    found[cut:].sum().backward()
    assert decay.grad[cut:].isfinite().all()


@every_way
def test_products_that_vanish_are_zero_not_nan(monkeypatch, eager):
    monkeypatch.setattr(scan, "runs_eagerly", lambda *_: eager)
    decay = torch.full((1000, 1, 1), 1e-30, requires_grad=True)
    h = linear_scan(decay, torch.ones(1000, 1, 1), torch.ones(1, 1), torch.zeros(1, 1), Resets(None))
    h.sum().backward()
    assert torch.equal(h, torch.ones(1000, 1, 1))
    assert decay.grad.isfinite().all()
