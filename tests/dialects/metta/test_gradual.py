"""A whole legacy agent moves into a container of ours, component by component, and computes the same all the way."""

import pytest
import torch

from policysmith.dialects.metta import pack_state, read, unpack_state
from policysmith.graph import ComponentContainer, LegacyComponent
from tests.dialects.metta.legacy_configs import ACTIONS, SHAPE, SIMPLE
from tests.dialects.metta.test_grammar import FEATURE_MAX, observations, original, stored, written

# What layers take and give besides their sources.
BESIDE = {
    "_obs_": {"reads": ["x"], "writes": ["_batch_size_", "_TT_", "_BxTT_"]},
    "_core_": {"reads": ["state", "_batch_size_", "_TT_"], "writes": ["state"]},
    "_action_embeds_": {"reads": ["_BxTT_"]},
}
STAGES = {
    "nothing yet": [],
    "one layer": ["fc1"],
    "the encoder": ["_obs_", "obs_normalizer", "cnn1", "cnn2", "obs_flattener", "fc1", "encoded_obs"],
    "the heads": ["core_relu", "critic_1", "actor_1", "_value_", "_action_embeds_", "_action_"],
    "the memory": ["_core_"],
    "everything": list(SIMPLE["components"]),
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_of_a_migration_computes_the_same(stage, tmp_path):
    agent = original(SIMPLE)
    weights = stored(tmp_path / "old.pt", agent)
    policy = read(written(tmp_path / "agent.yaml", SIMPLE), weights=weights, obs_shape=SHAPE, actions=ACTIONS).policy
    container = ComponentContainer(
        {name: LegacyComponent(layer, **BESIDE.get(name, {})) for name, layer in agent.components.items()}
    )
    assert set(container.state_dict()) == {name.removeprefix("components.") for name in agent.state_dict()}
    kept = {}
    for name in STAGES[stage]:
        if f"{name}_layer" in policy.components:
            container.register_component(f"{name}_layer", policy.components[f"{name}_layer"])
        # What a converted shaper no longer tells, the rest is told by the caller.
        kept[name] = container.replace_component(name, policy.components[name])
    obs, packed = observations(SHAPE, 3), torch.randn(4, 3, 128, generator=torch.Generator().manual_seed(7))
    given = {"x": obs, "observation": obs, "state": packed, **unpack_state(packed), **rows(len(obs))}
    with torch.no_grad():
        logits, value, after = agent(obs, packed)
        result = container(dict(given))
        torch.testing.assert_close(result["_action_"], logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(result["_value_"].view_as(value), value, rtol=0, atol=1e-5)
        mine = pack_state(result) if "_core_" in kept else result["state"]
        torch.testing.assert_close(mine, after, rtol=0, atol=1e-5)
        for name, component in kept.items():  # and back
            container.replace_component(name, component)
        assert torch.equal(container(dict(given))["_action_"], logits)
    assert logits.std() > 1e-2 and len(FEATURE_MAX) == 22


def rows(count):
    """What the legacy shaper tells of a batch of single steps."""
    return {"_batch_size_": count, "_TT_": 1, "_BxTT_": count}
