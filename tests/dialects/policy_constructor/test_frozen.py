"""Policies that an earlier version stored with graphs of schema version 1 in them load, and compute what they did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import policysmith

FROZEN = Path(__file__).parent / "frozen"
EXPECTED = json.loads((FROZEN / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(params=sorted(EXPECTED))
def name(request):
    return request.param


def observation(policy) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.rand((5, *space.shape), generator=generator)
        for key, space in policy.observations.space.spaces.items()
    }


def test_a_stored_policy_gives_what_it_gave(name):
    policy = policysmith.load(FROZEN / name)
    logits, value = policy(observation(policy))
    torch.testing.assert_close(logits, torch.tensor(EXPECTED[name]["policy"]), rtol=0, atol=1e-6)
    torch.testing.assert_close(value, torch.tensor(EXPECTED[name]["value"]), rtol=0, atol=1e-6)


def test_its_weights_have_their_names_order_and_values(name):
    state = policysmith.load(FROZEN / name).state_dict()
    assert list(state) == EXPECTED[name]["state"]
    torch.testing.assert_close([float(t.double().sum()) for t in state.values()], EXPECTED[name]["sums"])


def without_added(new, old):
    """`new` less the options that `old` had not yet and that are null, false or empty: nothing is asked of them."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {k: without_added(v, old.get(k)) for k, v in new.items() if k in old or v}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [without_added(*pair) for pair in zip(new, old, strict=True)]
    return new


def test_saved_again_its_configuration_is_the_same_text(name, tmp_path):
    policysmith.save(policysmith.load(FROZEN / name), tmp_path / "again")
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (FROZEN / name, tmp_path / "again"))
    assert json.dumps(old["experiment"]) == json.dumps(without_added(new["experiment"], old["experiment"]))
