"""Cross-attention reads a source as its mask allows, of whatever length and width."""

from __future__ import annotations

import pytest
import torch

from policysmith.ops.timeline import unpadded
from policysmith.parts import CrossAttention
from tests.reference.attention import slow_heads

from .cases import DIM, TIGHT, assert_same, gradients, tokens


def build(**options):
    torch.manual_seed(0)
    module = CrossAttention(**{"dim": DIM, "heads": 4, **options})
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, parameter.dim() == 1, 0.4)
    return module.double()


@pytest.mark.parametrize(
    "options", [{}, {"kv_heads": 2}, {"source_dim": 10, "qk_norm": True, "bias": True, "head_dim": 5}]
)
@pytest.mark.parametrize("T", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_its_definition_in_values_and_gradients(options, T, masked):
    module, x = build(**options), tokens(2, T).requires_grad_()
    source = tokens(2, 5, seed=3)[..., : options.get("source_dim", DIM)].requires_grad_()
    mask = torch.rand(2, 1, T, 5, generator=torch.Generator().manual_seed(1)) < 0.5
    y = module(x, source, mask if masked else None)
    weights = dict(module.named_parameters())
    kv_heads = options.get("kv_heads", 4)

    def row(b):
        return slow_heads(weights, x[b], source[b], 4, kv_heads, lambda h, i, j: not masked or mask[b, 0, i, j])

    slow = torch.stack([row(b) for b in range(2)])
    torch.testing.assert_close(y, slow, **TIGHT)
    assert_same(gradients(y, module, x, source), gradients(slow, module, x, source))


def test_padding_of_the_source_is_as_if_it_were_not_there():
    module, x, source = build(), tokens(2, 3), tokens(2, 5, seed=3)
    padding = torch.arange(5) >= torch.tensor([[5], [2]])
    y = module(x, source, unpadded(padding))
    torch.testing.assert_close(y[:1], module(x[:1], source[:1]), **TIGHT)
    torch.testing.assert_close(y[1:], module(x[1:], source[1:, :2]), **TIGHT)


def test_a_source_of_padding_alone_gives_zeros():
    module, x = build(), tokens(1, 3)
    assert not module(x, tokens(1, 5), torch.zeros(1, 1, 1, 5, dtype=torch.bool)).any()


def test_dropout_is_for_training_only():
    module, x = build(dropout=0.5), tokens(1, 5)
    assert not torch.equal(module(x, x), module(x, x))
    torch.testing.assert_close(module.eval()(x, x), build()(x, x), **TIGHT)
