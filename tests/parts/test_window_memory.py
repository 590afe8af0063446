"""A memory over a window begins anew at every call."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policysmith.registry import part

T, F = 6, 5
MEMORIES = {
    "transformer_memory": {"dim": 8, "context": 3, "attention": {"type": "mha", "heads": 2}},
    "lstm": {"hidden_size": 8},
}


def window_memory(name: str) -> nn.Module:
    torch.manual_seed(0)
    spec = {"type": "window_memory", "memory": {"type": name, **MEMORIES[name]}}
    return part("component", spec).build(event_shape=(T, F))


@pytest.mark.parametrize("name", MEMORIES)
def test_it_is_the_memory_stepped_from_its_initial_state(name):
    module, x = window_memory(name), torch.randn(3, T, F)
    state, outputs = module.memory.initial_state(3), []
    for t in range(T):
        y, state = module.memory(x[:, t], state)
        outputs.append(y)
    torch.testing.assert_close(module(x), torch.stack(outputs, 1))
    torch.testing.assert_close(module(x), module(x))


def test_a_component_without_memory_is_refused():
    with pytest.raises(ValueError, match="memory: 'mlp' keeps nothing between steps; use lstm, gru or transformer_mem"):
        part("component", {"type": "window_memory", "memory": "mlp"}).build(event_shape=(T, F))


def test_a_single_observation_is_no_window():
    spec = {"type": "window_memory", "memory": {"type": "transformer_memory", "dim": 8}}
    with pytest.raises(ValueError, match=r"a window \(T, features\) is expected, found \(5,\)"):
        part("component", spec).build(event_shape=(F,))
