"""Rotary turns are rotations of pairs by step · rate, exact enough for long episodes."""

from __future__ import annotations

import math

import pytest
import torch

from policysmith.ops.rotary import rotary_turns, rotate
from tests.reference.attention import turned

STEPS = torch.tensor([[0, 1, 7], [2, 900, 5]])


def random(width=8, dtype=torch.float64):
    return torch.randn(2, 3, 4, width, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pairs", [1, 3, 4])
@pytest.mark.parametrize("steps", [STEPS, STEPS[:1]])
def test_pairs_turn_by_their_angles_and_the_rest_stays(pairs, steps):
    x = random()
    found = rotate(x, rotary_turns(steps, pairs, 100.0, x.dtype))
    for b, t, h in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
        step = steps.expand(2, -1)[b, t].item()
        expected = turned(x[b, t, h], step, fraction=pairs / 4, base=100.0)
        torch.testing.assert_close(found[b, t, h], expected, rtol=1e-12, atol=1e-12)


def test_a_turn_keeps_lengths_and_products_depend_on_the_distance_only():
    q, k = random()[:, :1], random()[:, 1:2]

    def product(step_q, step_k):
        turns = [rotary_turns(torch.tensor([[step]]), 4, 1e4, torch.float64) for step in (step_q, step_k)]
        return (rotate(q, turns[0]) * rotate(k, turns[1])).sum(-1)

    torch.testing.assert_close(product(5, 2), product(1005, 1002), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(product(5, 2), product(5, 3))
    torch.testing.assert_close(rotate(q, rotary_turns(STEPS[:, 2:], 4, 1e4, q.dtype)).norm(dim=-1), q.norm(dim=-1))


def test_step_zero_is_not_turned():
    x = random()
    assert torch.equal(rotate(x, rotary_turns(torch.zeros(1, 3, dtype=torch.int64), 4, 1e4, x.dtype)), x)


def test_angles_are_exact_in_half_precision():
    """bfloat16 would round step 1001 to 1000."""
    cos, sin = rotary_turns(torch.tensor([[1001]]), 1, 1e4, torch.bfloat16)
    assert cos.flatten().tolist() == pytest.approx([math.cos(1001)] * 2, abs=1e-6)
    assert sin.flatten().tolist() == pytest.approx([-math.sin(1001), math.sin(1001)], abs=1e-6)
    x = torch.tensor([1.0, 0.0], dtype=torch.bfloat16).view(1, 1, 1, 2)
    turned_x = rotate(x, (cos, sin))
    assert turned_x.dtype == torch.bfloat16
    assert turned_x.flatten().tolist() == pytest.approx([math.cos(1001), math.sin(1001)], abs=4e-3)


def test_gradients_are_turned_back():
    x = random().requires_grad_()
    turns = rotary_turns(STEPS, 3, 1e4, x.dtype)
    assert torch.autograd.gradcheck(lambda t: rotate(t, turns), x)
