"""`predict` serves what training knows: legal masks, and rows whose episode begins."""

import warnings

import numpy as np
import pytest
import torch
from gymnasium import spaces

import policysmith
from policysmith.errors import MaskError, ShapeError

BOX, CHOICES = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4)
PLAIN = {"type": "mlp", "hidden": [4]}
REMEMBERING = {
    "type": "graph",
    "components": {
        "memory": {"type": "lstm", "in_keys": "observation", "hidden_size": 4},
        "policy": {"type": "action_head", "in_keys": "memory"},
        "state_value": {"type": "value_head", "in_keys": "memory"},
    },
}
SEEN = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)


def policy_of(model, space=CHOICES, **execution):
    return policysmith.build({"model": model, "execution": execution}, BOX, space, seed=0)


@pytest.mark.parametrize("model", [PLAIN, REMEMBERING], ids=["plain", "remembering"])
def test_a_legal_mask_is_obeyed(model):
    policy, mask = policy_of(model), np.eye(5, 4, dtype=np.int8)
    mask[4] = [0, 0, 1, 0]
    for greedy in (True, False):
        assert policy.predict(SEEN, None, greedy, legal_mask=mask)[0].tolist() == [0, 1, 2, 3, 2]
    assert policy.predict(SEEN[0], legal_mask=[0, 0, 0, 1])[0] == 3
    assert policy.predict(SEEN, legal_mask=[0, 1, 0, 0])[0].tolist() == [1] * 5
    with pytest.raises(ShapeError, match=r"the legal mask has shape \(3,\)"):
        policy.predict(SEEN, legal_mask=np.ones(3))


def test_a_mask_has_the_structure_of_the_action_space():
    space = spaces.Dict(kind=spaces.Discrete(3), at=spaces.Box(-1, 1, (2,)))
    action, _ = policy_of(PLAIN, space).predict(SEEN[0], legal_mask={"kind": np.array([0, 1, 0])})
    assert action["kind"] == 1 and action["at"].shape == (2,)


def test_rows_that_begin_forget():
    policy, first = policy_of(REMEMBERING), np.array([True, False, True, False, False])
    _, state = policy.predict(SEEN)
    _, mixed = policy.predict(SEEN, state, first=first)
    _, anew = policy.predict(SEEN)
    _, going_on = policy.predict(SEEN, state)
    for key, found in mixed.items():
        assert torch.equal(found[first], anew[key][first]) and torch.equal(found[~first], going_on[key][~first])
    assert all(torch.equal(t, anew[key]) for key, t in policy.predict(SEEN, state, first=True)[1].items())
    assert policy_of(PLAIN).predict(SEEN, "as it came", first=first)[1] == "as it came"


@pytest.mark.parametrize("model", [PLAIN, REMEMBERING], ids=["plain", "remembering"])
def test_a_row_without_a_legal_action_is_told(model):
    mask = np.ones((5, 4), bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy_of(model).predict(SEEN, legal_mask=mask)
    mask[3] = False
    with pytest.warns(UserWarning, match="leaves no action, so action 0 is taken"):
        assert policy_of(model).predict(SEEN, legal_mask=mask)[0][3] == 0
    with pytest.raises(MaskError, match="no legal action in row 3"):
        policy_of(model, strict_masks=True).predict(SEEN, legal_mask=mask)
