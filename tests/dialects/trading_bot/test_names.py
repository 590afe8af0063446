"""The flat configuration: its defaults and sizes are the original's, its mistakes are named, and what it says works."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest
import torch

import policysmith
from policysmith import ModelConfig, create_model
from policysmith.errors import ConfigError
from policysmith.policy import ActorCritic, ActorCriticProtocol

SMALL: dict[str, Any] = {
    "n_features": 4, "window_size": 6, "embedding_dim": 16, "n_heads": 2, "n_encoder_layers": 1,
    "feature_extractor_dim": 6, "head_hidden_dim": 8,
}  # fmt: skip
LSTM: dict[str, Any] = {
    "core_model_type": "lstm", "n_features": 4, "window_size": 6, "lstm_hidden_dim": 8, "feature_extractor_dim": 6,
    "head_hidden_dim": 8,
}  # fmt: skip


def small(**options: Any) -> ModelConfig:
    given = {**SMALL, **options}
    if given.get("architecture") == "decoder_only":
        given.pop("n_encoder_layers")
        given.setdefault("n_decoder_layers", 1)
    return ModelConfig(**given)


def problems(*args: Any, **options: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        ModelConfig(*args, **options)
    return {problem.path: problem.message for problem in caught.value.problems}


def parameters(**options: Any) -> int:
    return sum(p.numel() for p in create_model(ModelConfig(**options)).parameters())


def windows(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 6, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 3_435_780),
        ({"attention_type": "mqn"}, 2_977_028),
        ({"attention_type": "pyr"}, 3_439_876),
        ({"ffn_type": "moe", "n_experts": 8, "top_k": 2}, 18_159_876),
    ],
)
def test_parameters_are_counted_as_in_the_original(options, count):
    assert parameters(**options) == count


def test_parameters_follow_the_closed_forms():
    F, H, E, T, A, D, L = 59, 128, 256, 100, 3, 128, 4
    extractor = 3 * F * H + H + 2 * H + 3 * H * E + E + 2 * E
    time = T * E + (E // 2 + E // 2) + (E // 2 * E + E)
    block = 4 * E * E + 4 * E + 8 * E * E + 5 * E
    heads = 2 * (E * D + D + D * D + D) + (D * A + A) + (D + 1)
    assert parameters() == extractor + time + L * block + 2 * E + heads
    assert parameters(use_gated_residual=True) - parameters() == 2 * L
    assert parameters(use_final_norm=True) - parameters() == 2 * E * L


def test_the_defaults_are_the_original_s():
    config = dataclasses.asdict(ModelConfig())
    assert config["causal"] is True and config["decoder_input"] == "queries"
    expected = {
        "core_model_type": "transformer", "architecture": "encoder_only", "embedding_dim": 256, "n_heads": 8,
        "window_size": 100, "dropout": 0.1, "n_encoder_layers": 4, "n_decoder_layers": 4, "attention_type": "mha",
        "n_latents": None, "n_groups": None, "ffn_type": "standard", "ffn_dim": None, "n_experts": None, "top_k": None,
        "norm_type": "layer_norm", "residual_scale": 1.0, "use_gated_residual": False, "use_final_norm": False,
        "feature_extractor_type": "basic", "use_skip_connections": False, "feature_extractor_dim": 128,
        "feature_extractor_layers": 2, "feature_dropout": 0, "use_layer_norm": False, "use_instance_norm": False,
        "head_hidden_dim": 128, "head_n_layers": 2, "head_use_layer_norm": False, "head_use_residual": False,
        "head_dropout": None, "action_dim": 3, "n_features": 59, "temperature": 0.5, "lstm_hidden_dim": 128,
        "lstm_num_layers": 2, "lstm_dropout": 0,
    }  # fmt: skip
    assert {name: config[name] for name in expected} == expected
    assert len(config) == len(expected) + 2


WORKING: dict[str, ModelConfig] = {
    "default": small(),
    "mla": small(attention_type="mla"),
    "mqn": small(attention_type="mqn"),
    "gqa": small(attention_type="gqa", n_heads=4, n_groups=2),
    "pyr": small(attention_type="pyr"),
    "pyramid": small(attention_type="pyramid"),
    "latent_queries": small(attention_type="latent_queries", n_latents=3, causal=False),
    "decoder_only": small(architecture="decoder_only", n_decoder_layers=2),
    "decoder_only-pyr-moe": small(architecture="decoder_only", attention_type="pyr", ffn_type="moe", n_experts=3),
    "encoder_decoder": small(architecture="encoder_decoder", n_decoder_layers=1),
    "encoder_decoder-shifted": small(architecture="encoder_decoder", n_decoder_layers=1, decoder_input="shifted"),
    "bidirectional": small(causal=False),
    "rms_norm": small(norm_type="rms_norm"),
    "batch_norm": small(norm_type="batch_norm"),
    "group_norm": small(norm_type="group_norm"),
    "instance_norm": small(norm_type="instance_norm", use_instance_norm=True, causal=False),
    "gated": small(use_gated_residual=True, residual_scale=0.5, use_final_norm=True),
    "moe": small(ffn_type="moe", n_experts=3, top_k=1, ffn_dim=8),
    "resnet": small(feature_extractor_type="resnet", use_layer_norm=True, feature_dropout=0.1),
    "inception": small(feature_extractor_type="inception"),
    "one-layer-extractor": small(feature_extractor_layers=1),
    "plain-head": ModelConfig(**{k: v for k, v in SMALL.items() if k != "head_hidden_dim"}, head_n_layers=0),
    "residual-head": small(head_use_residual=True, head_use_layer_norm=True, head_dropout=0.2, head_n_layers=3),
    "lstm": ModelConfig(**LSTM),
    "lstm-one-layer": ModelConfig(**LSTM, lstm_num_layers=1, feature_extractor_type="resnet"),
}


@pytest.mark.parametrize("name", WORKING)
def test_every_configuration_builds_acts_trains_and_is_stored(name, tmp_path):
    torch.manual_seed(0)
    policy = create_model(WORKING[name])
    assert isinstance(policy, ActorCritic) and isinstance(policy, ActorCriticProtocol)
    obs, actions = windows(), torch.tensor([0, 1, 2, 0])
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.01)
    before = [p.detach().clone() for p in policy.parameters()]
    log_prob, entropy, value = policy.evaluate_actions(obs, actions)
    (value.square().mean() - log_prob.mean() - entropy.mean()).backward()
    optimizer.step()
    moved = [not torch.equal(p, b) for p, b in zip(policy.parameters(), before, strict=True)]
    assert sum(moved) > 0.7 * len(moved)
    policy.eval()
    logits, value = policy(obs)
    assert logits.shape == (4, 3) and value.shape == (4,) and logits.isfinite().all()
    chosen, log_prob, _ = policy.get_action_and_value(obs)
    torch.testing.assert_close(policy.evaluate_actions(obs, chosen)[0], log_prob)
    policysmith.save(policy, tmp_path / "policy")
    torch.testing.assert_close(policysmith.load(tmp_path / "policy")(obs)[0], logits)


def test_the_configuration_that_the_seed_confirms_works():
    policy = create_model(ModelConfig(architecture="encoder_only", attention_type="mla", n_features=12, window_size=20))
    logits, value = policy(torch.randn(5, 20, 12))
    assert logits.shape == (5, 3) and value.shape == (5,)
    attention = policy.components["stack"].module.core.encoder_blocks[0].attention
    assert type(attention).__name__ == "MultiHeadLatentAttention"


@pytest.mark.parametrize("name", ["default", "encoder_decoder-shifted", "bidirectional", "decoder_only"])
def test_causal_is_honoured_from_end_to_end(name):
    """What the stack makes of a step, convolutions included, depends on later ones exactly when it may."""
    policy = create_model(WORKING[name]).eval()
    parts = [policy.components[part].module for part in ("extractor", "stack")]
    other = windows()
    other[:, -1] += torch.randn(4)
    before, after = (parts[1](parts[0](x))[:, :-1] for x in (windows(), other))
    assert torch.equal(before, after) is (name != "bidirectional")


def test_temperature_is_part_of_the_distribution_wherever_it_is_used():
    torch.manual_seed(0)
    warm = create_model(small(temperature=1.0)).eval()
    torch.manual_seed(0)
    cold = create_model(small()).eval()
    torch.testing.assert_close(cold(windows())[0], 2 * warm(windows())[0])


def test_a_mapping_with_its_names_is_the_same():
    for flat in (SMALL, dataclasses.asdict(small())):
        torch.manual_seed(0)
        one = create_model(flat)
        torch.manual_seed(0)
        two = create_model(small())
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    with pytest.raises(ConfigError, match=r"unknown option of 'ModelConfig' \(did you mean 'attention_type'\?\)"):
        create_model({**SMALL, "attention_typ": "mha"})
    with pytest.raises(ConfigError, match="model_type: required option of 'create_model' is missing"):
        create_model({"nonsense": 1})


def test_the_nested_configuration_builds_the_same_model_by_itself():
    config = small(attention_type="gqa", n_heads=4, n_groups=2)
    torch.manual_seed(0)
    flat = create_model(config)
    torch.manual_seed(0)
    nested = policysmith.build({"seed": None, "model": config.model}, config.observation_space, config.action_space)
    assert flat.state_dict().keys() == nested.state_dict().keys()
    assert flat.plan.parameter_count == nested.plan.parameter_count


def test_configurations_compare_copy_and_come_back_from_a_dictionary():
    config = WORKING["moe"]
    for twin in (
        copy.deepcopy(config),
        pickle.loads(pickle.dumps(config)),
        ModelConfig(**dataclasses.asdict(config)),
        dataclasses.replace(config),
    ):
        assert twin == config
    assert dataclasses.replace(config, n_experts=4).n_experts == 4
    with pytest.raises(ConfigError, match="n_experts: must be > 0, found 0"):
        dataclasses.replace(config, n_experts=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.n_experts = 5


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({"n_latents": 8}, "n_latents", "8 plays no part with attention_type: mha; it belongs to latent_queries"),
        ({"n_latents": 8, "attention_type": "mla"}, "n_latents", "which the original called mla"),
        ({"n_groups": 2}, "n_groups", "2 plays no part with attention_type: mha; it belongs to gqa"),
        ({"n_experts": 4}, "n_experts", "4 plays no part with ffn_type: standard; it belongs to moe"),
        ({"top_k": 1}, "top_k", "1 plays no part with ffn_type: standard; it belongs to moe"),
        ({"n_decoder_layers": 2}, "n_decoder_layers", "2 plays no part with architecture: encoder_only; it belongs to"),
        (
            {"architecture": "decoder_only", "n_encoder_layers": 2},
            "n_encoder_layers",
            "2 plays no part with architecture: decoder_only; it belongs to encoder_only or encoder_decoder",
        ),
        ({"decoder_input": "shifted"}, "decoder_input", "'shifted' plays no part with architecture: encoder_only"),
        (
            {"lstm_hidden_dim": 8},
            "lstm_hidden_dim",
            "8 plays no part with core_model_type: transformer; it belongs to l",
        ),
        (
            {"core_model_type": "lstm", "n_heads": 4},
            "n_heads",
            "4 plays no part with core_model_type: lstm; it belongs",
        ),
        ({"head_n_layers": 0, "head_dropout": 0.5}, "head_dropout", "0.5 plays no part with head_n_layers: 0"),
        ({"architecture": "moe"}, "architecture", "'moe' is no architecture: use ffn_type: moe"),
        ({"architecture": "encoder"}, "architecture", "unknown value 'encoder' (did you mean 'encoder_only'?)"),
        ({"n_layers": 4}, "n_layers", "use n_encoder_layers / n_decoder_layers"),
        ({"attention_type": "mhaa"}, "attention_type", "unknown value 'mhaa' (did you mean 'mha'?); allowed: mha, mqa"),
        ({"norm_type": "layernorm"}, "norm_type", "did you mean 'layer_norm'?"),
        ({"ffn_type": "dense"}, "ffn_type", "unknown value 'dense'; allowed: standard, moe"),
        ({"dropout": 1}, "dropout", "must be < 1, found 1"),
        ({"n_heads": True}, "n_heads", "expected an integer, found true"),
        ({"temperature": 0}, "temperature", "must be > 0, found 0"),
        ({"embedding_dim": 100}, "embedding_dim", "100 is not a multiple of n_heads=8"),
        (
            {"attention_type": "gqa"},
            "n_groups",
            "gqa needs the number of heads of keys and values, a divisor of n_head",
        ),
        ({"attention_type": "gqa", "n_groups": 3}, "n_groups", "n_heads=8 is not a multiple of n_groups=3"),
        ({"ffn_type": "moe"}, "n_experts", "ffn_type: moe needs it"),
        ({"ffn_type": "moe", "n_experts": 2, "top_k": 3}, "top_k", "3 of n_experts=2 cannot be chosen"),
        (
            {"architecture": "decoder_only", "causal": False},
            "causal",
            "decoder_only is causal self-attention; use arch",
        ),
        (
            {"attention_type": "latent_queries"},
            "causal",
            "latent_queries lets every step see the whole window; it need",
        ),
        ({"norm_type": "instance_norm"}, "causal", "norm_type: instance_norm averages over the whole window; it needs"),
        (
            {"use_instance_norm": True},
            "causal",
            "use_instance_norm averages over the whole window; it needs causal=Fal",
        ),
        (
            {"use_instance_norm": True, "use_layer_norm": True, "causal": False},
            "use_instance_norm",
            "use_layer_norm asks for another norm of the same layers",
        ),
        (
            {"use_skip_connections": True, "feature_extractor_type": "inception"},
            "use_skip_connections",
            "skip connections are those of feature_extractor_type: resnet, not of inception",
        ),
        ({"head_use_residual": True, "head_n_layers": 1}, "head_use_residual", "leaves no layer for a shortcut"),
        (
            {"core_model_type": "lstm", "lstm_dropout": 0.5, "lstm_num_layers": 1},
            "lstm_dropout",
            "0.5 acts between layers, but lstm_num_layers=1",
        ),
    ],
)
def test_a_mistake_is_a_problem_at_its_option(options, name, message):
    found = problems(**options)
    assert list(found) == [name]
    assert message in found[name]


def test_every_mistake_is_reported_at_once():
    found = problems(
        architecture="moe", n_layers=3, embedding_dim=257, n_groups=3, top_k=3, attention_typ="mha", dropout=2.0
    )
    assert sorted(found) == [
        "architecture", "attention_typ", "dropout", "embedding_dim", "n_groups", "n_layers", "top_k",
    ]  # fmt: skip


def test_positional_arguments_are_checked_too():
    assert list(problems("transformers")) == ["core_model_type"]
    assert ModelConfig("lstm").core_model_type == "lstm"


def test_options_left_at_their_defaults_are_nobody_s_mistake():
    ModelConfig(core_model_type="lstm", n_heads=8, n_groups=None)
    ModelConfig(lstm_hidden_dim=128, lstm_dropout=0, n_decoder_layers=4)


def test_aliases_mean_the_same_model():
    for old, new in (("mqn", "mqa"), ("pyr", "pyramid")):
        assert small(attention_type=old).model == small(attention_type=new).model


def test_skip_connections_ask_for_the_resnet_extractor():
    assert small(use_skip_connections=True).model == small(feature_extractor_type="resnet").model
