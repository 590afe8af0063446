"""Resetting a state: rows that begin start anew, the others go on, and nothing of what is dropped is left."""

from __future__ import annotations

import pytest
import torch

from policysmith.ops.reset_state import reset_state

FIRST = torch.tensor([True, False, True])


@pytest.mark.parametrize("rows", [1, 3], ids=["one for all", "each its own"])
@pytest.mark.parametrize("event", [(), (2,), (2, 4)], ids=str)
def test_rows_that_begin_take_the_initial_state_and_the_others_go_on(rows, event):
    state, initial = torch.randn(3, *event), torch.randn(rows, *event)
    found = reset_state({"h": state}, {"h": initial}, FIRST)["h"]
    expected = [initial.expand(3, *event)[0], state[1], initial.expand(3, *event)[2]]
    assert torch.equal(found, torch.stack(expected))


def test_what_was_not_finite_in_a_row_that_begins_is_gone():
    state = torch.tensor([[float("nan")], [1.0], [float("inf")]])
    found = reset_state({"h": state}, {"h": torch.zeros(1, 1)}, FIRST)["h"]
    assert found.flatten().tolist() == [0.0, 1.0, 0.0]


def test_every_tensor_of_a_state_keeps_its_name_and_its_type():
    state = {"count": torch.tensor([3, 4, 5]), "h": torch.ones(3, 2, dtype=torch.float64)}
    found = reset_state(state, {name: torch.zeros_like(t[:1]) for name, t in state.items()}, FIRST)
    assert {name: t.dtype for name, t in found.items()} == {"count": torch.int64, "h": torch.float64}
    assert found["count"].tolist() == [0, 4, 0] and found["h"].sum(1).tolist() == [0.0, 2.0, 0.0]
