"""Policies of the original transformer factory compute what they computed there, or every reason why they cannot."""

import dataclasses
import json

import pytest
import torch

import policysmith
from policysmith import ModelConfig
from policysmith.dialects.trading_bot import import_checkpoint, read
from policysmith.errors import CheckpointError, ConfigError
from tests.reference.original_transformer import OriginalTransformer

CLOSE = {"rtol": 0, "atol": 1e-5}
DEFAULTS = {f.name: f.default for f in dataclasses.fields(ModelConfig) if f.name not in ("causal", "decoder_input")}
SMALL = {
    "n_features": 5, "window_size": 11, "embedding_dim": 24, "n_heads": 4, "n_encoder_layers": 2, "n_decoder_layers": 3,
    "feature_extractor_dim": 9, "head_hidden_dim": 7, "action_dim": 4,
}  # fmt: skip


def flat(**options):
    """A whole flat configuration, as `asdict` gives it."""
    return {**DEFAULTS, **SMALL, **options}


def original(config, seed=3, **details):
    """The original in eval mode, every weight and statistic of it away from where it started."""
    torch.manual_seed(seed)
    model = OriginalTransformer(config, **details).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                tensor.fill_(7)
            elif not name.endswith(".masks"):
                tensor.add_((torch.rand(tensor.shape) - 0.5) * 0.4)
        for name, parameter in model.named_parameters():
            # Steps of tens swamp what a window holds: less of them, and more of what the heads make of it.
            parameter.mul_(0.1 if ".temporal_encoder.2." in name else 2 if name.startswith(("actor", "critic")) else 1)
    return model


def stored(path, model, config, **edits):
    """A checkpoint as the original's training wrote it; `edits` of the state dict, None takes a tensor away."""
    state = {name: t for name, t in {**model.state_dict(), **edits}.items() if t is not None}
    beside = {"optimizer_state_dict": {"state": {}}, "total_steps": 5, "best_reward": 1.5, "timestamp": "now"}
    torch.save({"model_state_dict": state, **beside, "model_config": config}, path)
    return path


def windows(config, batch=6):
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(batch, config["window_size"], config["n_features"], generator=generator)


def assert_same(policy, model, config):
    x = windows(config)
    with torch.no_grad():
        (logits, value), (their_logits, their_value) = policy(x), model(x)
    assert min(their_logits.std(0).min(), their_value.std(0).min()) > 1e-3  # windows matter: it can go wrong
    torch.testing.assert_close(logits, their_logits, **CLOSE)
    torch.testing.assert_close(value, their_value.squeeze(-1), **CLOSE)


DECODER = {"architecture": "decoder_only"}
MOE = {"ffn_type": "moe", "n_experts": 4}
CASES = {
    "mha": ({}, {}),
    "mqn": ({"attention_type": "mqn"}, {}),
    "pyr": ({"attention_type": "pyr"}, {}),
    "pyr of more heads than scales": ({"attention_type": "pyr", "n_heads": 8, "window_size": 40}, {}),
    "moe": (MOE, {}),
    "moe of one choice": ({**MOE, "top_k": 1, "ffn_dim": 10}, {}),
    "moe of three choices": ({**MOE, "top_k": 3}, {}),
    "decoder_only mha": (DECODER, {}),
    "decoder_only mqn moe": ({**DECODER, **MOE, "attention_type": "mqn"}, {}),
    "decoder_only pyr of one block": ({**DECODER, "attention_type": "pyr", "n_decoder_layers": 1}, {}),
    "gates, scale and norms": ({"use_gated_residual": True, "residual_scale": 0.6, "use_final_norm": True}, {}),
    "decoder gates and norms": ({**DECODER, "use_gated_residual": True, "use_final_norm": True}, {}),
    "resnet": ({"feature_extractor_type": "resnet"}, {}),
    "skip connections": ({"use_skip_connections": True}, {}),
    "inception": ({"feature_extractor_type": "inception"}, {}),
    "inception of uneven width": (
        {"feature_extractor_type": "inception", "feature_extractor_dim": 11, "feature_extractor_layers": 3}, {}
    ),
    "basic of three layers": ({"feature_extractor_layers": 3}, {}),
    "basic of one layer": ({"feature_extractor_layers": 1, "feature_extractor_dim": 24}, {}),
    "instance norm": ({"use_instance_norm": True}, {"conv_norm": "instance"}),
    "instance norm with weights": ({"use_instance_norm": True}, {"conv_norm": "affine instance"}),
    "instance norm of resnet": (
        {"use_instance_norm": True, "feature_extractor_type": "resnet"}, {"conv_norm": "instance"}
    ),
    "instance norm of uneven inception": (
        {"use_instance_norm": True, "feature_extractor_type": "inception", "feature_extractor_dim": 10},
        {"conv_norm": "instance"},
    ),
    "normed instances of uneven inception": (
        {"use_instance_norm": True, "feature_extractor_type": "inception", "feature_extractor_dim": 10},
        {"conv_norm": "affine instance"},
    ),
    "heads with norms": ({"head_use_layer_norm": True, "head_n_layers": 3}, {}),
    "heads without dropout": ({"head_dropout": 0.0}, {}),
    "heads of one layer": ({"head_n_layers": 0}, {}),
    "other names": ({}, {"names": ("w_q", "w_k", "w_v", "w_o")}),
    "words for names": ({"attention_type": "pyr"}, {"names": ("query_layers", "keys", "value_projs", "fc_out")}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_policy_computes_what_the_original_computed_also_after_it_was_stored(name, tmp_path):
    options, details = CASES[name]
    config = flat(**options)
    model = original(config, **details)
    policy = import_checkpoint(stored(tmp_path / "old.pt", model, config))
    assert not policy.training
    assert_same(policy, model, config)
    policysmith.save(policy, tmp_path / "new")
    assert_same(policysmith.load(tmp_path / "new"), model, config)


def test_the_original_s_defaults_are_imported_at_their_size(tmp_path):
    config = dict(DEFAULTS)
    model = original(config)
    policy = import_checkpoint(stored(tmp_path / "old.pt", model, config))
    assert sum(p.numel() for p in policy.parameters()) == sum(p.numel() for p in model.parameters()) == 3_435_780
    with torch.no_grad():
        for mine, theirs in zip(policy(windows(config, 2)), model(windows(config, 2)), strict=True):
            torch.testing.assert_close(mine, theirs.view_as(mine), rtol=1e-5, atol=1e-5)  # logits of 3 and more


def test_what_is_imported_can_be_trained_and_channels_without_weights_stay_without(tmp_path):
    config = flat(feature_extractor_type="inception", feature_extractor_dim=11, use_gated_residual=True)
    policy = import_checkpoint(stored(tmp_path / "old.pt", original(config), config)).train()
    logits, value = policy(windows(config))
    (logits.square().mean() + value.square().mean()).backward()
    assert all(p.grad is not None for p in policy.parameters())
    norm = policy.components["extractor"].blocks[0].norm
    assert not norm.weight[3:5].any() and not norm.weight.grad[3:5].any() and not norm.bias.grad[3:5].any()


class TestPyramid:
    """The original's pyramids ignored their mask."""

    CONFIG = flat(**DECODER, attention_type="pyr")

    def test_a_decoder_honours_it_here_and_says_so(self, tmp_path):
        file = stored(tmp_path / "old.pt", original(self.CONFIG), self.CONFIG)
        imported = read(file)
        assert any("ignored its mask" in note and "--unmasked" in note for note in imported.notes)
        assert_same(imported.policy, original(self.CONFIG, honest=True), self.CONFIG)
        stack = imported.policy.components["stack"].module
        x = torch.randn(1, 11, 24)
        later = torch.cat((x[:, :6], torch.randn(1, 5, 24)), 1)
        torch.testing.assert_close(stack(x)[:, :6], stack(later)[:, :6])

    def test_unmasked_it_computes_what_it_computed(self, tmp_path):
        imported = read(stored(tmp_path / "old.pt", original(self.CONFIG), self.CONFIG), unmasked=True)
        assert any("as in the original, which ignored its mask" in note for note in imported.notes)
        assert_same(imported.policy, original(self.CONFIG), self.CONFIG)

    @pytest.mark.parametrize("options", [{}, DECODER, {"attention_type": "pyr"}])
    def test_nothing_else_can_be_unmasked(self, tmp_path, options):
        config = flat(**options)
        with pytest.raises(ConfigError, match="unmasked: says nothing here"):
            read(stored(tmp_path / "old.pt", original(config), config), unmasked=True)

    def test_masks_of_another_pattern_are_refused(self, tmp_path):
        config, name = flat(attention_type="pyr"), "core_model.encoder_blocks.1.self_attn.masks"
        model = original(config)
        masks = model.state_dict()[name].clone()
        masks[1, 0, 5] = 1 - masks[1, 0, 5]
        with pytest.raises(CheckpointError, match=f"  {name}: are other masks than heads of a pyramid have$"):
            read(stored(tmp_path / "old.pt", model, config, **{name: masks}))


class TestConfiguration:
    """It comes with the checkpoint, or from elsewhere."""

    @pytest.mark.parametrize("kind", ["mapping", "json", "yaml", "nested"])
    def test_it_can_be_given_with_bare_weights(self, tmp_path, kind):
        config = flat()
        model = original(config)
        torch.save(model.state_dict(), tmp_path / "old.pt")
        given = {"model_config": config} if kind == "nested" else config
        file = tmp_path / ("config.yaml" if kind == "yaml" else "config.json")
        file.write_text(json.dumps(given))
        assert_same(read(tmp_path / "old.pt", config=given if kind == "mapping" else file).policy, model, config)

    def test_without_one_the_way_to_give_it_is_told(self, tmp_path):
        torch.save(original(flat()).state_dict(), tmp_path / "old.pt")
        with pytest.raises(CheckpointError, match=r"holds no model_config; .* with --config"):
            read(tmp_path / "old.pt")
        file = stored(tmp_path / "odd.pt", original(flat()), [1])
        with pytest.raises(CheckpointError, match="model_config is a list, expected a mapping"):
            read(file)

    def test_options_left_out_are_the_original_s_defaults_and_those_without_a_part_play_none(self, tmp_path):
        config = flat()
        model = original(config)
        short = {**SMALL, "lstm_hidden_dim": 999, "n_latents": 3, "n_groups": 2, "n_decoder_layers": 9}
        assert_same(read(stored(tmp_path / "old.pt", model, short)).policy, model, config)

    def test_every_option_that_cannot_be_had_is_named_with_the_reason(self, tmp_path):
        config = flat(
            core_model_type="lstm", architecture="encoder_decoder", attention_type="mla", norm_type="group_norm",
            use_layer_norm=True, head_use_residual=True, ffn_type="moe", n_experts=2, top_k=3, n_heads=5,
            window_size="many", causal=True, frobnicate=1,
        )  # fmt: skip
        torch.save({"model_state_dict": {"x": torch.zeros(1)}, "model_config": config}, tmp_path / "old.pt")
        with pytest.raises(CheckpointError) as caught:
            read(tmp_path / "old.pt")
        first, *lines = str(caught.value).splitlines()
        assert first == f"{tmp_path / 'old.pt'}: cannot be imported as a policy of the original transformer factory:"
        assert [line.strip().partition(":")[0] for line in lines] == [
            "causal", "frobnicate", "window_size", "core_model_type", "architecture", "attention_type", "embedding_dim",
            "norm_type", "top_k", "use_layer_norm", "head_use_residual",
        ]  # fmt: skip
        assert "runs only where there are as many latents as steps" in str(caught.value)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"norm_type": "rms_norm"}, "norm_type: the original had no rms_norm"),
            ({"attention_type": "gqa", "n_groups": 2}, "attention_type: the original could not build gqa"),
            ({"ffn_type": "moe"}, "n_experts: ffn_type moe needs it"),
            ({"feature_extractor_layers": 1}, "feature_extractor_layers: one layer gives 9 features"),
            ({"feature_extractor_type": "inception", "feature_extractor_dim": 2}, "2 is too small for 3 branches"),
        ],
    )
    def test_so_is_each_alone(self, tmp_path, options, message):
        with pytest.raises(CheckpointError, match=message):
            read(stored(tmp_path / "old.pt", original(flat()), flat(**options)))


class TestMismatches:
    """Every problem is named at once, and nothing is loaded."""

    def refused(self, file):
        with pytest.raises(CheckpointError) as caught:
            read(file)
        return [line.strip() for line in str(caught.value).splitlines()[1:]]

    def test_missing_misshapen_and_unexpected_tensors_are_listed_together(self, tmp_path):
        config, block = flat(), "core_model.encoder_blocks.0"
        edits = {
            "actor.3.weight": torch.zeros(7, 8), f"{block}.norm1.bias": None, "frobnicate": torch.zeros(2),
            f"{block}.self_attn.q_proj.weight": None, f"{block}.self_attn.zeal.weight": torch.zeros(24, 24),
        }  # fmt: skip
        lines = self.refused(stored(tmp_path / "old.pt", original(config), config, **edits))
        assert [line.partition(" (did you mean")[0] for line in lines] == [
            f"{block}.norm1.bias: missing",
            f"{block}.self_attn.query.weight: missing",
            "actor.3.weight: float32 (7, 8), expected float (7, 7)",
            "frobnicate: unexpected",
            f"{block}.self_attn.zeal.weight: unexpected",
        ]

    def test_two_claims_to_one_projection_are_both_unexpected(self, tmp_path):
        config, place = flat(), "core_model.encoder_blocks.0.self_attn"
        edits = {f"{place}.query.weight": torch.zeros(24, 24)}
        lines = self.refused(stored(tmp_path / "old.pt", original(config), config, **edits))
        assert any(line.startswith(f"{place}.q_proj.weight: unexpected") for line in lines)

    def test_a_configuration_of_other_sizes_is_told_by_size(self, tmp_path):
        config = flat(**MOE)
        other = {
            **config, "embedding_dim": 48, "window_size": 12, "n_features": 6, "action_dim": 2, "head_hidden_dim": 8,
            "feature_extractor_dim": 10, "ffn_dim": 5, "n_experts": 5, "n_encoder_layers": 3,
        }  # fmt: skip
        lines = self.refused(stored(tmp_path / "old.pt", original(config), other))
        assert "embedding_dim: the configuration says 48, and the weights 24" in lines
        told = {line.partition(":")[0] for line in lines}
        assert told == {*other.keys() - {n for n in other if other[n] == config[n]}, "embedding_dim // 2"}

    def test_heads_that_share_keys_in_another_number_are_noticed(self, tmp_path):
        config = flat(attention_type="mqn")
        lines = self.refused(stored(tmp_path / "old.pt", original(config), {**config, "n_heads": 8}))
        assert lines == ["embedding_dim / n_heads: the configuration says 3, and the weights 6"]

    def test_a_number_of_blocks_or_layers_beyond_the_weights_costs_nothing(self, tmp_path):
        config = flat()
        many = dict.fromkeys(("n_encoder_layers", "feature_extractor_layers", "head_n_layers"), 10**9)
        lines = self.refused(stored(tmp_path / "old.pt", original(config), {**config, **many}))
        assert "n_encoder_layers: the configuration says 1000000000, and the weights 2" in lines
        assert "feature_extractor_layers: the configuration says 1000000000, and the weights 2" in lines
        assert "actor.9.weight: missing" in lines


class TestNotes:
    def test_they_say_what_was_assumed_and_left_behind(self, tmp_path):
        config = flat()
        assert read(stored(tmp_path / "old.pt", original(config), config)).notes == (
            "the heads' activation is stored nowhere: GELU was taken",
            "logits are the original's forward: to act with its temperature too, set "
            "model.components.policy.temperature=0.5",
            "left behind: optimizer_state_dict, total_steps, best_reward, timestamp",
        )

    def test_attention_to_a_source_that_was_never_trained_is_left_behind(self, tmp_path):
        config = flat(**DECODER)
        model, extra = original(config), {}
        for index in range(3):
            block = f"core_model.decoder_blocks.{index}"
            extra |= {f"{block}.norm_cross.weight": torch.ones(24), f"{block}.norm_cross.bias": torch.zeros(24)}
            extra |= {f"{block}.cross_attn.q_proj.weight": torch.randn(24, 24)}
        imported = read(stored(tmp_path / "old.pt", model, config, **extra))
        assert_same(imported.policy, model, config)
        assert "left behind: the decoder's attention to a source, which was never trained" in imported.notes
        extra["core_model.decoder_blocks.1.norm_cross.bias"] = torch.full((24,), 0.1)
        with pytest.raises(CheckpointError, match=r"blocks\.1\.norm_cross\.bias: was trained"):
            read(stored(tmp_path / "old.pt", model, config, **extra))
