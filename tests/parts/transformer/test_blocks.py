"""Blocks are their slots in the order that the placement says; slots take names, mappings, specs and classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from policysmith.ops.timeline import over_sequence
from policysmith.parts import DecoderBlock, EncoderBlock, MultiHeadAttention
from policysmith.parts.feedforward import FeedForward
from policysmith.parts.residual import Gated, ReZero
from policysmith.registry import default_registry, part
from tests.reference.transformer import cross_attention, encoder_block, feedforward, layer_norm, self_attention

B, T, S, D, H = 2, 5, 4, 8, 2
TWO_HEADS = {"type": "mha", "heads": H}
PLACEMENTS = ["pre", "post", "sandwich"]


def randomised(module: nn.Module) -> nn.Module:
    """Double precision, and no weight where it starts."""
    torch.manual_seed(0)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return module


def tokens(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, count, D, generator=generator, dtype=torch.float64)


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def same_gradients(module: nn.Module, inputs: list[Tensor], found: Tensor, expected: Tensor) -> None:
    wanted = [*inputs, *module.parameters()]
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pair = [torch.autograd.grad((y * weights).sum(), wanted) for y in (found, expected)]
    for a, b in zip(*pair, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_an_encoder_block_is_its_slow_twin(placement, causal):
    block = randomised(EncoderBlock(D, TWO_HEADS, placement=placement))
    x = tokens(T).requires_grad_()
    found, cache = block(x, over_sequence(x, causal=causal))
    expected = torch.stack([encoder_block(block, row, causal, placement) for row in x])
    torch.testing.assert_close(found, expected)
    assert cache is None
    same_gradients(block, [x], found, expected)


@pytest.mark.parametrize("causal", [False, True])
def test_a_decoder_block_is_its_slow_twin(causal):
    block = randomised(DecoderBlock(D, TWO_HEADS))
    x, source = tokens(T).requires_grad_(), tokens(S, 2).requires_grad_()
    mask = torch.ones(T, S, dtype=torch.bool).tril() if causal else None
    found, _ = block(x, source, over_sequence(x, causal=causal), source_mask=mask)
    rows = []
    for y, s in zip(x, source, strict=True):
        y = y + self_attention(block.attention, layer_norm(block.attention_branch.norm_in, y), causal)
        z = layer_norm(block.cross_branch.norm_in, y)
        y = y + cross_attention(block.cross, z, s, lambda t, i: i <= t or not causal)
        rows.append(y + feedforward(block.feedforward, layer_norm(block.feedforward_branch.norm_in, y)))
    torch.testing.assert_close(found, torch.stack(rows))
    same_gradients(block, [x, source], found, torch.stack(rows))


@pytest.mark.parametrize("kind", [EncoderBlock, DecoderBlock])
def test_a_final_norm_stands_behind_the_block(kind):
    torch.manual_seed(0)
    plain = kind(D, TWO_HEADS)
    torch.manual_seed(0)
    normed = kind(D, TWO_HEADS, final_norm=True)
    x = tokens(T).float()
    more = [tokens(S).float()] if kind is DecoderBlock else []
    timeline = over_sequence(x)
    expected = nn.functional.layer_norm(plain(x, *more, timeline)[0], (D,))
    torch.testing.assert_close(normed(x, *more, timeline)[0], expected)


def test_parameters_are_those_of_the_closed_forms():
    """4E² + 4E + 8E² + 5E for multi-head attention and a feed-forward of 4E; E² less for each shared projection."""
    E, h = 64, 8
    norms, ffn = 4 * E, 8 * E * E + 5 * E
    heads = {"heads": h}
    assert size(EncoderBlock(E, {"type": "mha", **heads})) == 4 * E * E + norms + ffn
    assert size(EncoderBlock(E, {"type": "mqa", **heads})) == 2 * E * E + 2 * E * (E // h) + norms + ffn
    assert size(EncoderBlock(E, {"type": "gqa", "kv_heads": 2, **heads})) == 2 * E * E + 4 * E * (E // h) + norms + ffn
    assert size(EncoderBlock(E, {"type": "pyramid", "bias": True, **heads})) == 4 * E * E + 4 * E + norms + ffn
    moe = {"type": "moe", "experts": 3}
    assert size(EncoderBlock(E, {"type": "mha", **heads}, moe)) == 4 * E * E + norms + 3 * ffn + 3 * E
    assert size(EncoderBlock(E, {"type": "mha", **heads}, residual="gated")) == 4 * E * E + norms + ffn + 2
    assert size(EncoderBlock(E, {"type": "mha", **heads}, placement="sandwich")) == 4 * E * E + 2 * norms + ffn
    assert size(DecoderBlock(E, {"type": "mha", **heads})) == 8 * E * E + 6 * E + ffn


@pytest.mark.parametrize("norm", default_registry.names("norm"))
@pytest.mark.parametrize("residual", default_registry.names("residual"))
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_norm_residual_and_placement_fit_together(norm, residual, placement):
    for kind in (EncoderBlock, DecoderBlock):
        block = randomised(kind(D, TWO_HEADS, norm=norm, residual=residual, placement=placement, final_norm=True))
        x = tokens(T).requires_grad_()
        more = [tokens(S)] if kind is DecoderBlock else []
        y, _ = block(x, *more, over_sequence(x))
        assert y.shape == x.shape
        (y * tokens(T, 4)).sum().backward()
        assert all(p.grad.isfinite().all() and p.grad.any() for p in (x, *block.parameters()))


@pytest.mark.parametrize("feed", default_registry.names("feedforward"))
def test_every_feedforward_fits_and_reports_where_it_has_something_to_report(feed):
    block = EncoderBlock(D, TWO_HEADS, feed)
    x, aux = tokens(T).float(), {}
    assert block(x, over_sequence(x), aux=aux)[0].shape == x.shape
    assert ("load_balance_loss" in aux) is (feed == "moe")


class HalfAttention(nn.Module):
    """Somebody's own attention: half of what it reads."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor, timeline: Any, cache: Any = None) -> tuple[Tensor, Any]:
        return x / 2, cache


class Tripled(nn.Module):
    """Somebody's own feed-forward, norm or residual; it knows nothing of auxiliary losses."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x


class Nameless(nn.Module):
    """Takes no width at all."""

    def __init__(self, size: int) -> None:
        super().__init__()


@pytest.mark.parametrize(
    "attention", ["mha", {"type": "mha", "heads": 8}, part("attention", "mha"), MultiHeadAttention],
    ids=["name", "mapping", "spec", "class"],
)  # fmt: skip
@pytest.mark.parametrize("feed", ["mlp", {"type": "mlp"}, part("feedforward", "mlp"), FeedForward])
@pytest.mark.parametrize("norm", ["layer", {"type": "layer"}, part("norm", "layer"), nn.LayerNorm])
def test_a_slot_takes_a_name_a_mapping_a_spec_or_a_class(attention, feed, norm):
    torch.manual_seed(0)
    block = EncoderBlock(D, attention, feed, norm)
    torch.manual_seed(0)
    expected = EncoderBlock(D)
    x = tokens(T).float()
    assert torch.equal(block(x, over_sequence(x))[0], expected(x, over_sequence(x))[0])


def test_classes_that_nobody_registered_are_built_with_the_width():
    block = EncoderBlock(D, HalfAttention, Tripled, Tripled, ReZero)
    assert block.attention.dim == block.feedforward.features == block.attention_branch.norm_in.features == D
    with torch.no_grad():
        block.attention_branch.residual.alpha.fill_(1)
        block.feedforward_branch.residual.alpha.fill_(1)
    x = tokens(T).float()
    torch.testing.assert_close(block(x, over_sequence(x))[0], (x + 1.5 * x) * (1 + 9))
    assert isinstance(EncoderBlock(D, residual=Gated).attention_branch.residual, Gated)
    with pytest.raises(ValueError, match=r"feedforward: Nameless\(size\) takes neither dim nor features"):
        EncoderBlock(D, feedforward=Nameless)


@pytest.mark.parametrize(("torch_norm", "axes"), [(nn.BatchNorm1d, (0, 1)), (nn.InstanceNorm1d, (1,))])
def test_norm_classes_of_torch_normalise_the_right_axis(torch_norm, axes):
    branch = EncoderBlock(T, {"type": "mha", "heads": 1}, norm=torch_norm).attention_branch
    x = tokens(T).float()[..., :T]  # as many steps as features: torch's own would say nothing
    expected = (x - x.mean(axes, keepdim=True)) / (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(branch.norm_in(x), expected)


def test_attention_that_reads_a_source_and_attention_that_does_not_are_told_apart():
    with pytest.raises(ValueError, match="attention 'cross' reads a source, where one is needed that reads its own"):
        EncoderBlock(D, "cross")
    with pytest.raises(ValueError, match="attention 'mha' reads its own stream, where one is needed that reads a sour"):
        DecoderBlock(D, cross="mha")


def test_cross_attention_has_the_heads_of_the_block_unless_told():
    assert DecoderBlock(D, TWO_HEADS).cross.heads == H
    assert DecoderBlock(D, TWO_HEADS, cross={"type": "cross", "heads": 4}).cross.heads == 4


def test_dropout_falls_on_branches_in_training_only():
    block = EncoderBlock(D, TWO_HEADS, dropout=0.5)
    x = tokens(T).float()
    timeline = over_sequence(x)
    torch.manual_seed(0)
    one = block(x, timeline)[0]
    assert not torch.equal(one, block(x, timeline)[0])
    block.eval()
    assert torch.equal(block(x, timeline)[0], block(x, timeline)[0])
    assert [m.p for m in block.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
