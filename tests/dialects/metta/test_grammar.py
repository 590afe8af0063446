"""Legacy agents compute what they computed there, or every reason why they cannot."""

import json

import pytest
import torch
from safetensors.torch import save_file

import policysmith
from policysmith.dialects.metta import import_agent, pack_state, unpack_state
from tests.dialects.metta.legacy_configs import ACTIONS, SHAPE, SIMPLE, layer, small
from tests.reference.legacy_agent import LegacyAgent

CLOSE = {"rtol": 0, "atol": 1e-5}
FEATURE_MAX = [float(1 + 10 * i) for i in range(22)]
TINY = (5, 5, 3)


def written(path, config):
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def original(config, shape=SHAPE, actions=ACTIONS, seed=3):
    """The original in eval mode, every weight away from where it started."""
    torch.manual_seed(seed)
    agent = LegacyAgent(config, shape, actions, FEATURE_MAX[: shape[-1]]).eval()
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.2 * (torch.rand_like(parameter) - 0.5))
    return agent


def stored(path, agent):
    """The agent's weights as a file."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.clone() for name, tensor in agent.state_dict().items()}, path)
    else:
        torch.save({"model_state_dict": agent.state_dict(), "agent_step": 7}, path)
    return path


def observations(shape, *lead, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 200 if shape == SHAPE else 4, (*lead, *shape), generator=generator, dtype=torch.uint8)


def assert_same(policy, agent, shape=SHAPE, rows=3, steps=4):
    """Every step alike: logits, values and, where there is a memory, the state; some episodes begin on the way."""
    obs = observations(shape, rows, steps)
    first = torch.rand(rows, steps, generator=torch.Generator().manual_seed(2)) < 0.3
    packed, state = None, policy.init_state(rows) if policy.has_memory else None
    seen = []
    with torch.no_grad():
        for t in range(steps):
            packed = packed if packed is None else packed * ~first[:, t].view(1, -1, 1)
            theirs, their_value, packed = agent(obs[:, t], packed)
            if state is None:
                logits, value = policy(obs[:, t])
            else:
                distribution, value = policy.distribution(obs[:, t], None, state, first[:, t]), None
                logits, before = distribution.parameters["logits"], state
                *_, value, state = policy.act(obs[:, t], before, first[:, t], deterministic=True)
                torch.testing.assert_close(pack_state(state), packed, **CLOSE)
            torch.testing.assert_close(logits, theirs, **CLOSE)
            torch.testing.assert_close(value, their_value.squeeze(-1), **CLOSE)
            seen.append(logits)
    assert torch.stack(seen).std(0).max() > 1e-3  # observations matter: it can go wrong


def round_trip(tmp_path, config, shape=SHAPE, suffix=".pt", **options):
    """The twin, and the policy imported from what it stores, as loaded from an artifact of ours."""
    agent = original(config, shape)
    weights = stored(tmp_path / f"old{suffix}", agent)
    policy = import_agent(written(tmp_path / "agent.yaml", config), weights=weights, obs_shape=shape, **options)
    policysmith.save(policy, tmp_path / "new")
    return agent, policysmith.load(tmp_path / "new")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_simple_agent_computes_what_it_computed_also_after_it_was_stored(tmp_path, suffix):
    agent, policy = round_trip(tmp_path, SIMPLE, suffix=suffix)
    assert sum(p.numel() for p in policy.parameters()) == 570_178
    assert not policy.training and policy.actions.space.n == 9
    assert_same(policy, agent)


CASES = {
    "an actor with a network": small(_action_=layer("MettaActorBig", "actor_1", "_action_embeds_")),
    "no activation behind a layer": small(encoded_obs=layer("Linear", "flat", out_features=10, nonlinearity=None)),
    "other activations": small(
        encoded_obs=layer("Linear", "flat", out_features=10, nonlinearity="nn.PReLU", initialization="Xavier"),
        actor_1=layer("Linear", "_core_", out_features=7, nonlinearity="nn.SELU"),
    ),
    "no bias": small(encoded_obs=layer("Linear", "flat", out_features=10, bias=False)),
    "layer norm": small(
        normed=layer("LayerNorm", "encoded_obs", eps=1e-3),
        _core_=layer("LSTM", "normed", output_size=6, num_layers=3),
    ),
    "batch norm and dropout": small(
        normed=layer("BatchNorm2d", "_obs_"),
        flat=layer("Flatten", "normed"),
        dropped=layer("Dropout", "encoded_obs", p=0.5),
        same=layer("Identity", "dropped"),
        _core_=layer("LSTM", "same", output_size=6, num_layers=1),
    ),
    "maps joined by their channels": small(
        cnn=layer("Conv2d", "_obs_", out_channels=4, kernel_size=3, padding=1),
        both=layer("ConcatMergeLayer", "_obs_", {"name": "cnn", "slice": [1, 3], "dim": 1}, library="merge_layer"),
        flat=layer("Flatten", "both"),
    ),
    "slices of vectors": small(
        halves=layer(
            "ConcatMergeLayer",
            {"name": "encoded_obs", "slice": [0, 4], "dim": 1},
            {"name": "encoded_obs", "slice": [6, 10], "dim": 1},
            {"name": "encoded_obs", "dim": 1},
        ),
        _core_=layer("LSTM", "halves", output_size=6, num_layers=1),
    ),
    "sums, differences and means": small(
        other=layer("Linear", "flat", out_features=10),
        third=layer("Linear", "flat", out_features=10),
        added=layer("AddMergeLayer", "encoded_obs", "other", "third"),
        less=layer("SubtractMergeLayer", "added", "other"),
        mean=layer("MeanMergeLayer", "less", "third"),
        _core_=layer("LSTM", "mean", output_size=6, num_layers=1),
    ),
    "a bilinear layer": small(
        other=layer("Linear", "flat", out_features=4),
        pair=layer("Bilinear", "encoded_obs", "other", out_features=5),
        _core_=layer("LSTM", "pair", output_size=6, num_layers=1),
    ),
    "a residual network": small(
        deep=layer("ResNetMLP", "encoded_obs", depth=8),
        _core_=layer("LSTM", "deep", output_size=6, num_layers=1),
    ),
    "the centre of a map beside all of it": small(
        cnn=layer("Conv2d", "_obs_", out_channels=4, kernel_size=3),
        centre=layer("CenterPixelLayer", "cnn"),
        joined=layer("ConcatMergeLayer", "flat", "centre"),
        encoded_obs=layer("Linear", "joined", out_features=10),
    ),
    "a vector expanded and folded": small(
        wide=layer("ExpandLayer", "encoded_obs", expand_dim=1, expand_value=3),
        flatter=layer("ReshapeLayer", "wide", popped_dim=2, squeezed_dim=1),
        _core_=layer("LSTM", "flatter", output_size=6, num_layers=1),
    ),
    "a value behind an activation": small(_value_=layer("Linear", "_core_", out_features=1, nonlinearity="nn.Tanh")),
    "no memory": small(_core_=layer("Linear", "encoded_obs", out_features=6)),
    "actions without embeddings": small(
        _action_=layer("Linear", "_core_", out_features=9, nonlinearity=None), _action_embeds_=None, actor_1=None
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_agent_computes_what_it_computed(name, tmp_path):
    given = {"actions": ACTIONS} if name == "actions without embeddings" else {}
    agent, policy = round_trip(tmp_path, CASES[name], TINY, **given)
    assert_same(policy, agent, TINY)


def test_a_batch_of_sequences_gives_what_it_gave(tmp_path):
    agent, policy = round_trip(tmp_path, CASES["layer norm"], TINY)
    obs = observations(TINY, 3, 5)
    start = torch.randn(6, 3, 6, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits, value, packed = agent(obs, start)
        mine, my_value, state = policy.unroll(obs, unpack_state(start))
    torch.testing.assert_close(mine.flatten(0, 1), logits, **CLOSE)
    torch.testing.assert_close(my_value.flatten(0, 1), value.squeeze(-1), **CLOSE)
    torch.testing.assert_close(pack_state(state), packed, **CLOSE)
