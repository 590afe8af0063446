"""Latent queries: two attentions by way of latents, over everything but padding, and never over time."""

from __future__ import annotations

import pytest
import torch

from policysmith.ops.timeline import over_memory, over_sequence
from policysmith.parts import LatentQueryAttention
from tests.reference.attention import slow_heads, turned

from .cases import DIM, TIGHT, assert_same, gradients, position, tokens


def build(**options):
    torch.manual_seed(0)
    module = LatentQueryAttention(**{"dim": DIM, "heads": 4, "n_latents": 3, **options})
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, parameter.dim() == 1, 0.4)
    return module.double()


def plain(vector, step):
    return vector


def slow(module, x_TF, turn=plain, padded=()):
    """Latents read the row, the row reads the latents; only the row's tokens have a step."""
    weights = dict(module.named_parameters())
    gather = {name.removeprefix("gather."): weight for name, weight in weights.items()}
    spread = {name.removeprefix("spread."): weight for name, weight in weights.items()}
    latents, heads = weights["latents.weight"], module.gather.heads
    visible = lambda h, i, j: j not in padded  # noqa: E731
    z = slow_heads(gather, latents, x_TF, heads, heads, visible, turn, turn_queries=plain)
    return slow_heads(spread, x_TF, z, heads, heads, turn=plain, turn_queries=turn)


@pytest.mark.parametrize("options", [{}, {"n_latents": 1}, {"n_latents": 8, "qk_norm": True, "bias": True}])
@pytest.mark.parametrize(("name", "turn"), [("none", plain), ("rope", turned)])
def test_equals_its_definition_in_values_and_gradients(options, name, turn):
    module, x = build(**options), tokens(1, 5).requires_grad_()
    y, cache = module(x, over_sequence(x, position(name)))
    expected = slow(module, x[0], turn).unsqueeze(0)
    assert cache is None
    torch.testing.assert_close(y, expected, **TIGHT)
    assert_same(gradients(y, module, x), gradients(expected, module, x))


@pytest.mark.parametrize("n_latents", [1, 4, 30])
@pytest.mark.parametrize("T", [1, 7])
def test_the_length_is_restored_for_any_number_of_latents(n_latents, T):
    assert build(n_latents=n_latents)(tokens(2, T))[0].shape == (2, T, DIM)


def test_padding_is_as_if_it_were_not_there():
    module, x = build(), tokens(2, 6)
    padding = torch.tensor([[0, 0, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0]]).bool()
    y, _ = module(x, over_sequence(x, position("rope"), padding_BT=padding))
    torch.testing.assert_close(y[0], slow(module, x[0], turned, padded=(2, 4, 5)), **TIGHT)
    torch.testing.assert_close(y[1], slow(module, x[1], turned), **TIGHT)


def test_a_row_of_padding_alone_is_finite():
    module, x = build(), tokens(2, 3).requires_grad_()
    y, _ = module(x, over_sequence(x, padding_BT=torch.tensor([[True] * 3, [False] * 3])))
    assert y.isfinite().all()
    assert not y[0].any()
    y.sum().backward()
    assert all(t.grad.isfinite().all() for t in (x, *module.parameters()))


def test_every_token_changes_every_other():
    module, x = build(), tokens(1, 5)
    other = x.clone()
    other[:, 4] += 1
    assert (module(x)[0] != module(other)[0]).any(-1).all()


@pytest.mark.parametrize("options", [{"causal": True}, {"window": 2}, {"causal": True, "window": 2}])
def test_a_causal_or_windowed_timeline_is_refused(options):
    x = tokens(1, 5)
    padding = torch.zeros(1, 5, dtype=torch.bool)
    for given in (options, options | {"padding_BT": padding}):
        with pytest.raises(ValueError, match="neither causal, windowed nor a memory"):
            build()(x, over_sequence(x, **given))


def test_it_is_refused_as_a_memory():
    timeline, _ = over_memory(torch.zeros(1, dtype=torch.int64), None, 1, 4)
    with pytest.raises(ValueError, match="neither causal, windowed nor a memory"):
        build()(tokens(1, 1), timeline)
    with pytest.raises(ValueError, match="neither causal, windowed nor a memory"):
        build()(tokens(1, 1), None, {})
    with pytest.raises(ValueError, match="can't be the memory of an episode"):
        build().initial_cache(1, 4)


def test_biases_by_distance_are_refused_not_dropped():
    x = tokens(1, 5)
    with pytest.raises(ValueError, match="take position: rope, learned or sinusoidal"):
        build()(x, over_sequence(x, position("alibi")))


def test_it_compiles_and_exports_whole():
    module, x = build(), tokens(2, 5)
    expected, _ = module(x)
    compiled, _ = torch.compile(module, fullgraph=True, backend="eager")(x)
    exported, _ = torch.export.export(module, (x,)).module()(x)
    torch.testing.assert_close(compiled, expected, **TIGHT)
    torch.testing.assert_close(exported, expected, **TIGHT)
    assert module.to("meta")(x.to("meta"))[0].shape == (2, 5, DIM)


def test_dropout_is_for_training_only():
    module, x = build(dropout=0.5), tokens(1, 5)
    assert not torch.equal(module(x)[0], module(x)[0])
    torch.testing.assert_close(module.eval()(x)[0], build()(x)[0], **TIGHT)
