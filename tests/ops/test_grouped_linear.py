"""A linear layer per group in one product."""

from __future__ import annotations

import pytest
import torch

from policysmith.ops import grouped_linear as module
from policysmith.ops.grouped_linear import grouped_linear, grouped_pays

COUNTS = [3, 0, 4, 1]


def groups() -> tuple[torch.Tensor, torch.Tensor]:
    counts = torch.tensor(COUNTS)
    return torch.arange(4).repeat_interleave(counts), counts.cumsum(0).to(torch.int32)


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_equal_those_of_a_loop_over_groups(bias):
    group, ends = groups()
    x, weight, b = torch.randn(8, 8), torch.randn(4, 12, 8), torch.randn(4, 12) if bias else None
    out = torch.randn(8, 12)

    def outcome(function):
        leaves = [t.clone().requires_grad_() for t in (x, weight, *([b] if bias else []))]
        y = function(*leaves, *([] if bias else [None]))
        return [y, *torch.autograd.grad(y, leaves, out)]

    def loop(x, weight, b):
        y = torch.stack([weight[g] @ row for g, row in zip(group, x, strict=True)])
        return y if b is None else y + b[group]

    fast = outcome(lambda x, weight, b: grouped_linear(x, weight, b, group, ends))
    for found, expected in zip(fast, outcome(loop), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_it_pays_only_where_it_was_measured_and_can_run():
    rows, weights = module.MEASURED_FASTER["cpu", torch.float32]
    layers = torch.zeros(16, 8), torch.zeros(8, 16)
    heavy = torch.zeros(weights // 8 + 8, 8), layers[1]

    def pays(num_rows, layers, groups=2, stacked=False):
        return grouped_pays(torch.zeros(num_rows, 8, dtype=layers[0].dtype), layers, groups, stacked)

    assert pays(2 * rows, layers)
    assert not pays(2 * rows + 1, layers)
    assert pays(2 * rows, heavy, stacked=True)
    assert not pays(2 * rows, heavy)
    assert not pays(4, (torch.zeros(12, 8), torch.zeros(8, 6)))  # a gated pair: rows of 24 bytes between its layers
    for dtype in (torch.float64, torch.bfloat16):
        assert not pays(4, [layer.to(dtype) for layer in layers])
    with torch.autocast("cpu", torch.bfloat16):
        assert not pays(4, layers)
