"""PolicyState is the plain state, seen as one thing: no copies, and rows, stacks and devices at once."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces

import policysmith
from policysmith.errors import ShapeError
from policysmith.policy import PolicyState

BATCH = 5
MEMORY = {
    "model": {
        "type": "graph",
        "components": {
            "memory": {"type": "lstm", "in_keys": "observation", "hidden_size": 3},
            "policy": {"type": "action_head", "in_keys": "memory"},
            "state_value": {"type": "value_head", "in_keys": "memory"},
        },
    }
}


@pytest.fixture(scope="module")
def policy():
    return policysmith.build(MEMORY, spaces.Box(-1, 1, (4,)), spaces.Discrete(2), seed=0)


@pytest.fixture
def plain(policy):
    """A state that is not the initial one."""
    return policy.act(torch.randn(BATCH, 4), policy.init_state(BATCH))[-1]


def test_it_shares_every_tensor_with_the_plain_dict(plain):
    state = PolicyState.of(plain)
    assert state.batch_size == torch.Size([BATCH])
    back = state.plain()
    assert list(back) == list(plain) and all("/" in name for name in back)
    assert all(back[name].data_ptr() == tensor.data_ptr() for name, tensor in plain.items())


def test_a_policy_acts_with_it_as_with_the_dict(policy, plain):
    obs = torch.randn(BATCH, 4)
    one = policy.act(obs, plain, deterministic=True)
    other = policy.act(obs, PolicyState.of(plain).plain(), deterministic=True)
    assert torch.equal(one[2], other[2]) and all(torch.equal(one[3][name], other[3][name]) for name in plain)


def test_rows_are_views_and_keep_the_kind(plain):
    state = PolicyState.of(plain)
    rows = state[1:3]
    assert isinstance(rows, PolicyState) and rows.batch_size == torch.Size([2])
    name, tensor = next(iter(plain.items()))
    rows.plain()[name].fill_(7.0)
    assert (tensor[1:3] == 7).all() and not (tensor[3:] == 7).any()
    chosen = state[torch.tensor([True, False, False, False, True])]
    assert chosen.batch_size == torch.Size([2]) and torch.equal(chosen.plain()[name], tensor[[0, 4]])


def test_writing_rows_writes_the_dict(plain):
    state, fresh = PolicyState.of(plain), {name: torch.ones_like(tensor[:2]) for name, tensor in plain.items()}
    state[:2] = PolicyState.of(fresh)
    assert all((tensor[:2] == 1).all() for tensor in plain.values())


def test_states_are_stacked_and_joined(plain):
    state = PolicyState.of(plain)
    stacked, joined = torch.stack([state, state]), torch.cat([state[:2], state])
    assert isinstance(stacked, PolicyState) and stacked.batch_size == torch.Size([2, BATCH])
    assert isinstance(joined, PolicyState) and joined.batch_size == torch.Size([BATCH + 2])
    for name, tensor in plain.items():
        assert torch.equal(stacked.plain()[name], torch.stack([tensor, tensor]))
        assert torch.equal(joined.plain()[name], torch.cat([tensor[:2], tensor]))


def test_it_moves_whole(plain):
    moved = PolicyState.of(plain).to("meta")
    assert isinstance(moved, PolicyState) and all(tensor.is_meta for tensor in moved.plain().values())
    halves = PolicyState.of(plain).to(torch.float64).plain()
    assert all(tensor.dtype == torch.float64 for tensor in halves.values())


def test_a_state_without_one_batch_is_refused_with_its_shapes():
    with pytest.raises(ShapeError, match=r"batch first, the same everywhere; found 'a/h' \(2, 3\), 'a/c' \(4,\)"):
        PolicyState.of({"a/h": torch.zeros(2, 3), "a/c": torch.zeros(4)})
    with pytest.raises(ShapeError, match="'a/h'"):
        PolicyState.of({"a/h": torch.tensor(1.0)})
    with pytest.raises(ShapeError, match="give batch"):
        PolicyState.of({})
    assert PolicyState.of({}, batch=4).batch_size == torch.Size([4])
