"""Whole stacks: what each architecture lets an output see, where a decoder's tokens come from, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from policysmith.parts import DynamicTransformerCore, TransformerStack
from policysmith.registry import default_registry, part

B, T, D = 2, 6, 8
TWO_HEADS = {"type": "mha", "heads": 2}
CAUSAL_ATTENTIONS = [
    n for n in default_registry.names("attention") if default_registry.entry("attention", n).traits["causal"]
]
POSITIONS = default_registry.names("position")


def core(architecture: str = "decoder_only", **options: Any) -> DynamicTransformerCore:
    torch.manual_seed(0)
    module = DynamicTransformerCore(D, architecture, **{"attention": TWO_HEADS, **options}).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return module.eval()


def tokens(count: int = T, seed: int = 1) -> Tensor:
    return torch.randn(B, count, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sees(run: Any, x: Tensor, width: int) -> Tensor:
    """bool (outputs, steps): whether an output changes when a step of x does."""
    base, columns = run(x), []
    for step in range(width):
        other = x.clone()
        other[:, step] += tokens(1, 9)[:, 0]  # not the same for all features, which layer norm would not see
        columns.append((run(other) - base).abs().amax((0, 2)) > 1e-9)
    return torch.stack(columns, 1)


TRIANGLE = torch.ones(T, T, dtype=torch.bool).tril()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("attention", CAUSAL_ATTENTIONS)
def test_decoder_only_sees_the_past_with_every_attention_and_position(attention, position):
    spec = {"type": attention, "heads": 2, **({"kv_heads": 1} if attention == "gqa" else {})}
    found = sees(core(attention=spec, position=position), tokens(), T)
    assert torch.equal(found, TRIANGLE)
    bidirectional = sees(core("encoder_only", attention=spec, position=position), tokens(), T)
    assert bidirectional.all()


@pytest.mark.parametrize("norm", ["layer", "rms", "group", "batch"])
@pytest.mark.parametrize("residual", default_registry.names("residual"))
def test_causality_holds_with_every_residual_and_causal_norm(norm, residual):
    for placement in ("pre", "post", "sandwich"):
        run = core("encoder_only", causal=True, norm=norm, residual=residual, placement=placement, block_norm=True)
        assert torch.equal(sees(run, tokens(), T), TRIANGLE)


def test_decoder_only_is_encoder_only_with_causal():
    torch.testing.assert_close(core("decoder_only")(tokens()), core("encoder_only", causal=True)(tokens()))


def test_shifted_tokens_are_the_source_one_step_late():
    module = core("encoder_decoder", decoder_input="shifted")
    seen = module._decoder_tokens(tokens(), None)
    assert torch.equal(seen[:, 1:], tokens()[:, :-1])
    assert torch.equal(seen[0, 0], module.tokens.weight[0])


def test_a_causal_encoder_decoder_over_the_shifted_source_is_causal_from_end_to_end():
    run = core("encoder_decoder", decoder_input="shifted", causal=True)
    assert torch.equal(sees(run, tokens(), T), TRIANGLE)
    assert sees(core("encoder_decoder", decoder_input="shifted"), tokens(), T).all()


def test_learned_queries_read_the_whole_source_and_give_a_token_each():
    module = core("encoder_decoder", queries=3)
    assert module(tokens()).shape == (B, 3, D)
    assert sees(module, tokens(), T).all()
    assert core("encoder_decoder")(tokens()).shape == (B, 16, D)


@pytest.mark.parametrize("causal", [False, True])
def test_a_target_is_read_causally_and_its_source_whole(causal):
    module = core("encoder_decoder", decoder_input="target", causal=causal)
    source, target = tokens(4), tokens(T, 2)
    assert sees(lambda x: module(x, target), source, 4).all()
    over_target = sees(lambda y: module(source, y), target, T)
    assert torch.equal(over_target, TRIANGLE) if causal else over_target.all()
    with pytest.raises(ValueError, match="decoder_input: target needs a target beside the source"):
        module(source)


@pytest.mark.parametrize(
    "options",
    [
        {"architecture": "decoder_only"},
        {"architecture": "encoder_only"},
        {"architecture": "encoder_only", "attention": {"type": "latent_queries", "heads": 2, "n_latents": 3}},
        {"architecture": "encoder_decoder", "queries": 3},
        {"architecture": "encoder_decoder", "decoder_input": "shifted"},
        {"architecture": "encoder_decoder", "decoder_input": "shifted", "causal": True},
    ],
    ids=lambda o: "-".join(map(str, o.values())) if isinstance(o, dict) else "",
)
def test_padding_hides_tokens_whatever_else_is_masked(options):
    """Padding composes with causality: what is padded behind the window changes nothing before it."""
    module = core(**options)
    x, padding = tokens(), torch.zeros(B, T, dtype=torch.bool)
    padding[:, -2:] = True
    found, alone = module(x, padding_BS=padding), module(x[:, :-2])
    count = alone.shape[1]
    torch.testing.assert_close(found[:, :count], alone)
    other = x.clone()
    other[:, -2:] += tokens(2, 9)
    torch.testing.assert_close(module(other, padding_BS=padding)[:, :count], found[:, :count])


def test_a_wholly_padded_row_is_finite_and_leaves_the_others_alone():
    x, padding = tokens(), torch.zeros(B, T, dtype=torch.bool)
    padding[0] = True
    for architecture in ("decoder_only", "encoder_only", "encoder_decoder"):
        module = core(architecture)
        found = module(x, padding_BS=padding)
        assert found.isfinite().all()
        torch.testing.assert_close(found[1], module(x)[1])


def test_final_norms_are_one_for_each_stack_and_may_be_left_out():
    def norms(**options: Any) -> list[str]:
        module = core("encoder_decoder", **options)
        return [type(m).__name__ for m in (module.encoder_norm, module.decoder_norm)]

    assert norms() == ["LayerNorm", "LayerNorm"]
    assert norms(norm="rms") == ["RMSNorm", "RMSNorm"]
    assert norms(final_norm=False) == ["Identity", "Identity"]


def test_layers_are_counted_for_each_stack():
    module = core("encoder_decoder", layers=3, decoder_layers=1)
    assert (len(module.encoder_blocks), len(module.decoder_blocks)) == (3, 1)
    assert len(core("encoder_decoder", layers=3).decoder_blocks) == 3
    assert len({id(p) for b in module.encoder_blocks for p in b.parameters()}) == 3 * len(
        list(module.encoder_blocks[0].parameters())
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"decoder_layers": 2},
            "decoder_layers=2 belongs to architecture: encoder_decoder, not to decoder_only; its num",
        ),
        (
            {"architecture": "encoder_only", "queries": 2},
            "queries=2 belongs to architecture: encoder_decoder, not to enc",
        ),
        ({"decoder_input": "shifted"}, "decoder_input='shifted' belongs to architecture: encoder_decoder"),
        (
            {"architecture": "encoder_decoder", "decoder_input": "target", "queries": 2},
            "queries=2 belongs to decoder_input: queries, not to target",
        ),
        ({"causal": False}, "causal=False: decoder_only is causal self-attention; use architecture: encoder_only"),
        ({"architecture": "encoder_decoder", "causal": True}, "causal=True: learned queries see the whole source"),
        (
            {"attention": "latent_queries"},
            "attention: 'latent_queries' lets a step see the whole sequence, which a caus",
        ),
        (
            {"norm": "instance"},
            "norm: 'instance' lets a step see the whole sequence, which a causal transformer forbids",
        ),
        ({"attention": "cross"}, "attention: 'cross' lets a step|attention 'cross' reads a source"),
        (
            {"architecture": "encoder_only", "causal": True, "feedforward": {"type": "moe", "router": "soft"}},
            "feedforward.router: 'soft' lets a step see the whole sequence",
        ),
        ({"attention": {"type": "mha", "heads": 3}}, "dim=8 is not a multiple of heads=3"),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_way_out(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        core(**options)


def test_a_window_longer_than_its_positions_is_refused():
    module = core(position={"type": "time", "length": T - 1})
    with pytest.raises(ValueError, match=f"a sequence of {T} tokens is longer than the position length={T - 1}"):
        module(tokens())


def stack(shapes: Any, **options: Any) -> TransformerStack:
    torch.manual_seed(0)
    return part("component", {"type": "transformer_stack", "attention": TWO_HEADS, **options}).build(
        event_shapes=shapes
    )


def test_the_component_projects_features_to_its_width():
    x = torch.randn(B, T, 5)
    assert stack(((T, 5),), dim=8)(x).shape == (B, T, 8)
    module = stack(((T, 8),))
    assert isinstance(module.project, nn.Identity) and module(torch.randn(B, T, 8)).shape == (B, T, 8)
    module = stack(((T, 5), (4, 3)), dim=8, architecture="encoder_decoder", decoder_input="target")
    assert module(x, torch.randn(B, 4, 3)).shape == (B, 4, 8)


def test_the_component_takes_padding_as_numbers():
    x, padding = torch.randn(B, T, 8), torch.zeros(B, T)
    padding[:, -2:] = 1
    module = stack(((T, 8), (T,)), architecture="encoder_only")
    torch.testing.assert_close(module(x, padding=padding)[:, :-2], module(x[:, :-2]))


@pytest.mark.parametrize(
    ("shapes", "options", "sentence"),
    [
        (
            ((5,),),
            {},
            r"a window \(T, features\) is expected first, found \(5,\); for one step at a time use transform",
        ),
        (((T, 8), (4, 8)), {}, "2 sequences among the inputs, where 1 are expected: a target beside the source goes"),
        (
            ((T, 8),),
            {"architecture": "encoder_decoder", "decoder_input": "target"},
            "1 sequences among the inputs, where 2 are expected",
        ),
    ],
)
def test_the_component_says_what_inputs_it_wants(shapes, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        stack(shapes, **options)


def test_auxiliary_losses_come_from_encoder_and_decoder():
    moe = {"type": "moe", "experts": 3, "top_k": 1}
    losses = []
    for architecture in ("encoder_only", "encoder_decoder"):
        aux: dict[str, Tensor] = {}
        core(architecture, layers=1, feedforward=moe)(tokens(), aux=aux)
        losses.append(aux["load_balance_loss"].item())
    assert losses[1] > losses[0] > 0
