"""What the heads of window and pyramid attention see, key by key; nothing of it is stored."""

from __future__ import annotations

import pytest
import torch

from policysmith.ops.timeline import over_memory, over_sequence
from policysmith.parts import PyramidAttention, WindowAttention


def seen(module, timeline, T):
    mask, causal = module.pattern(timeline)
    assert not causal
    return mask.expand(1, module.heads, T, -1)[0]


@pytest.mark.parametrize("heads", [1, 3, 5, 8])
@pytest.mark.parametrize("causal", [False, True])
def test_heads_of_a_pyramid_see_near_keys_and_multiples(heads, causal):
    T = 40
    found = seen(PyramidAttention(dim=8 * heads, heads=heads), over_sequence(torch.zeros(1, T, 1), causal=causal), T)
    levels = min(5, heads)
    for h, i, j in torch.cartesian_prod(torch.arange(heads), torch.arange(T), torch.arange(T)).tolist():
        level, distance = min(h, levels - 1), abs(i - j)
        allowed = distance <= 2**level or distance % 2 ** (1 + level) == 0
        assert found[h, i, j] == (allowed and (j <= i or not causal)), (h, i, j)


def test_the_patterns_go_by_steps_not_by_places_in_memory():
    timeline, _ = over_memory(torch.tensor([10]), None, 1, 4)  # slots hold steps 8, 9, 10 and 7
    assert timeline.key_positions.tolist() == [[8, 9, 10, 7]]
    assert seen(WindowAttention(dim=8, size=2), timeline, 1)[0, 0].tolist() == [False, True, True, False]
    assert seen(PyramidAttention(dim=8), timeline, 1)[0, 0].tolist() == [True, True, True, False]
    assert seen(PyramidAttention(dim=8), timeline, 1)[2, 0].tolist() == [True, True, True, True]


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("causal", [False, True])
def test_a_window_is_as_many_steps_as_it_says_on_either_side(size, causal):
    found = seen(WindowAttention(dim=8, size=size), over_sequence(torch.zeros(1, 9, 1), causal=causal), 9)
    for i, j in torch.cartesian_prod(torch.arange(9), torch.arange(9)).tolist():
        assert found[:, i, j].eq(abs(i - j) < size and (j <= i or not causal)).all(), (i, j)


def test_padding_and_pattern_compose():
    padding = torch.tensor([[False, True, False, False]])
    timeline = over_sequence(torch.zeros(1, 4, 1), padding_BT=padding)
    assert seen(WindowAttention(dim=8, size=2), timeline, 4)[0, 2].tolist() == [False, False, True, True]
    assert seen(PyramidAttention(dim=8), timeline, 4)[0, 2].tolist() == [True, False, True, True]


@pytest.mark.parametrize("module", [WindowAttention(dim=8), PyramidAttention(dim=8)])
def test_no_pattern_is_kept(module):
    assert not list(module.buffers())


def test_the_pattern_is_made_once_for_all_layers():
    timeline = over_sequence(torch.zeros(1, 9, 1))
    layers = [PyramidAttention(dim=8), PyramidAttention(dim=8), PyramidAttention(dim=8, heads=2)]
    masks = [layer.pattern(timeline)[0] for layer in layers]
    assert masks[0] is masks[1]
    assert masks[2].shape[1] == 2
