"""The time embedding: a vector a step and a code of normalised time, at one scale from first step to last."""

from __future__ import annotations

import pytest
import torch

from policysmith.ops.init import initialize
from policysmith.ops.timeline import over_sequence
from policysmith.parts import TimeEmbedding

D, LENGTH = 16, 256


def embedding(length: int = LENGTH, dim: int = D) -> TimeEmbedding:
    torch.manual_seed(0)
    module = TimeEmbedding(dim, length)
    initialize(module)
    return module


def codes(module: TimeEmbedding, steps: torch.Tensor) -> torch.Tensor:
    return module.embed(torch.zeros(1, len(steps), D), steps.unsqueeze(0))[0].detach()


def test_parameters_are_those_of_the_closed_form():
    """T·E for the vectors, E/2 + E/2 and E/2·E + E for the network."""
    count = sum(p.numel() for p in embedding().parameters())
    assert count == LENGTH * D + (D // 2 + D // 2) + (D // 2 * D + D)


def test_no_step_swamps_the_signal():
    """With the raw index as time, codes grew two hundredfold from step 0 to 255."""
    scales = codes(embedding(), torch.tensor([0, 10, 127, 255])).square().mean(-1).sqrt()
    assert scales.max() < 1


def test_the_smooth_part_is_the_network_at_time_in_0_to_1():
    module = embedding()
    torch.nn.init.zeros_(module.table.weight)
    steps = torch.tensor([0, 63, 255])
    time = torch.tensor([[1 / 256], [64 / 256], [1.0]])
    torch.testing.assert_close(codes(module, steps), module.out(torch.nn.functional.gelu(module.hidden(time))))


def test_a_step_is_added_to_its_tokens_and_depends_on_nothing_else():
    module, x = embedding(), torch.randn(2, 5, D)
    found = module.embed(x, over_sequence(x).positions) - x
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], codes(module, torch.arange(5)))


def test_longer_sequences_are_refused_and_longer_episodes_stay_at_the_last_code():
    module = embedding(length=4)
    with pytest.raises(ValueError, match="a sequence of 5 tokens is longer than the position length=4"):
        over_sequence(torch.zeros(1, 5, D), module)
    found = codes(module, torch.tensor([3, 4, 1000]))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
