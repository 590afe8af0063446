"""Pooling: the last step, the mean, or weights that are learned; padding counts for nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policysmith.parts import SequencePool

B, T, D = 3, 5, 8
X = torch.randn(B, T, D, generator=torch.Generator().manual_seed(0))
KINDS = ["last", "mean", "attention"]


def pool(kind: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return SequencePool(((T, D),), kind, **options)


def test_last_is_the_last_step_and_mean_the_mean():
    assert torch.equal(pool("last")(X), X[:, -1])
    torch.testing.assert_close(pool("mean")(X), X.mean(1))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_weighs_steps_for_each_head_by_a_learned_score(heads):
    module = pool("attention", heads=heads)
    weights = (X @ module.score.weight.T).softmax(1)
    parts = [(weights[..., h : h + 1] * X[..., h * D // heads : (h + 1) * D // heads]).sum(1) for h in range(heads)]
    torch.testing.assert_close(module(X), torch.cat(parts, -1))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_on_either_side_is_as_if_it_were_not_there(kind, side):
    padding = torch.zeros(B, T)
    padding[:, :2] = 1
    padding = padding if side == "left" else padding.flip(1)
    alone = X[:, 2:] if side == "left" else X[:, :-2]
    torch.testing.assert_close(pool(kind)(X, padding), pool(kind)(alone))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_tokens_is_zero_with_finite_gradients(kind):
    module, x, padding = pool(kind), X.clone().requires_grad_(), torch.zeros(B, T)
    padding[1] = 1
    y = module(x, padding)
    assert torch.equal(y[1], torch.zeros(D)) and y[0].any()
    y.square().sum().backward()
    assert x.grad.isfinite().all() and not x.grad[1].any()


def test_what_pooling_cannot_take_is_refused():
    with pytest.raises(ValueError, match="heads=2 belongs to kind: attention, not to mean"):
        pool("mean", heads=2)
    with pytest.raises(ValueError, match="8 features are not a multiple of heads=3"):
        pool("attention", heads=3)
    with pytest.raises(ValueError, match=r"a sequence \(T, features\) is expected, found \(8,\)"):
        SequencePool(((D,),))
