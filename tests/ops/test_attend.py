"""The one attention call equals its definition, and its thorns are wrapped."""

from __future__ import annotations

import itertools

import pytest
import torch

from policysmith.ops import attend as module
from policysmith.ops.attend import attend
from tests.reference.attention import slow_attend

B, H = 2, 4


def tensors(T=3, S=5, G=4, D=6, E=6, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = (B, T, H, D), (B, S, G, D), (B, S, G, E)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def masks(T: int, S: int) -> torch.Tensor:
    mask = torch.rand(B, H, T, S, generator=torch.Generator().manual_seed(1)) < 0.6
    return mask | (torch.arange(S) == 0)


def assert_same_with_gradients(fast, slow, inputs):
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    weight = torch.linspace(-1, 2, fast.numel(), dtype=fast.dtype).view(fast.shape)
    found = torch.autograd.grad((fast * weight).sum(), inputs)
    expected = torch.autograd.grad((slow * weight).sum(), inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("T", "G", "E", "masked", "biased"), list(itertools.product((1, 3), (1, 2, 4), (4, 6, 9), (0, 1), (0, 1)))
)
def test_equals_the_definition_in_values_and_gradients(T, G, E, masked, biased):
    q, k, v = inputs = tensors(T=T, G=G, E=E)
    mask = masks(T, 5) if masked else None
    bias = torch.randn(B, H, T, 5, dtype=torch.float64) if biased else None
    assert_same_with_gradients(attend(q, k, v, mask, bias), slow_attend(q, k, v, mask, bias), inputs)


@pytest.mark.parametrize("T", [1, 3])
@pytest.mark.parametrize("G", [1, 2, 4])
@pytest.mark.parametrize("shape", [(B, 1, 1, 5), (1, 1, 3, 5), (1, H, 1, 5), (3, 5), (1, 5), (B, H, 3, 5)])
def test_masks_and_biases_broadcast(T, G, shape):
    shape = tuple(T if n == 3 else n for n in shape)
    mask, bias = masks(T, 5)[..., -1:, :].new_ones(shape), torch.randn(shape, dtype=torch.float64)
    mask[..., 2] = False
    q, k, v = inputs = tensors(T=T, G=G)
    full = mask.expand(B, H, T, 5), bias.expand(B, H, T, 5)
    assert_same_with_gradients(attend(q, k, v, mask, bias), slow_attend(q, k, v, *full), inputs)
    assert_same_with_gradients(attend(q, k, v, mask), slow_attend(q, k, v, full[0]), inputs)
    assert_same_with_gradients(attend(q, k, v, None, bias), slow_attend(q, k, v, None, full[1]), inputs)


@pytest.mark.parametrize("T", [1, 3])
def test_a_mask_of_the_rows_and_a_bias_of_the_heads_compose(T):
    mask, bias = masks(T, 5)[:, :1], torch.randn(1, H, T, 5, dtype=torch.float64)
    q, k, v = inputs = tensors(T=T, G=2)
    slow = slow_attend(q, k, v, mask.expand(B, H, T, 5), bias.expand(B, H, T, 5))
    assert_same_with_gradients(attend(q, k, v, mask, bias), slow, inputs)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_causal_is_the_lower_triangle_also_beside_a_mask_or_a_bias(masked, biased):
    q, k, v = inputs = tensors(T=5, S=5)
    mask = masks(5, 5) if masked else None
    bias = torch.randn(B, H, 5, 5, dtype=torch.float64) if biased else None
    triangle = torch.ones(B, H, 5, 5, dtype=torch.bool).tril()
    slow = slow_attend(q, k, v, triangle if mask is None else mask & triangle, bias)
    assert_same_with_gradients(attend(q, k, v, mask, bias, causal=True), slow, inputs)


def test_causal_needs_as_many_keys_as_queries():
    q, k, v = tensors(T=3, S=5)
    with pytest.raises(ValueError, match="found 5 keys, 3 queries"):
        attend(q, k, v, causal=True)


@pytest.mark.parametrize("T", [1, 3])
@pytest.mark.parametrize("E", [4, 6, 9])
def test_scale_is_that_of_the_keys_width_or_given(T, E):
    q, k, v = tensors(T=T, G=1, E=E)
    torch.testing.assert_close(attend(q, k, v, scale=6**-0.5), attend(q, k, v))
    torch.testing.assert_close(attend(q, k, v, scale=0.7), slow_attend(q, k, v, scale=0.7))


def fully_masked(T, G, biased, dtype=torch.float64):
    q, k, v = tensors(T=T, G=G, dtype=dtype)
    mask = masks(T, 5)
    mask[0, :, 0] = False
    bias = torch.randn(B, H, T, 5, dtype=dtype) if biased else None
    return (q, k, v), mask, bias


@pytest.mark.parametrize("T", [1, 3])
@pytest.mark.parametrize("G", [1, 4])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_query_without_keys_gives_zeros_and_finite_gradients(T, G, biased, dropout, dtype):
    inputs, mask, bias = fully_masked(T, G, biased, dtype)
    y = attend(*inputs, mask, bias, dropout=dropout)
    assert not y[0, 0].any()
    assert y.isfinite().all()
    assert dropout or y[1, 0].any()
    y.sum().backward()
    assert all(t.grad.isfinite().all() for t in inputs)
    assert not inputs[0].grad[0, 0].any()
    assert inputs[0].grad[1].any()


@pytest.mark.parametrize("T", [1, 3])
@pytest.mark.parametrize("biased", [False, True])
def test_where_the_kernel_promises_no_zeros_they_are_made(T, biased, monkeypatch):
    """The way of other devices, taken here: the kernel must never meet a row that allows nothing."""
    inputs, mask, bias = fully_masked(T, 2, biased)
    expected = attend(*inputs, mask, bias)
    kernel, met = torch.nn.functional.scaled_dot_product_attention, []

    def fragile(q, k, v, allowed, *args, **kwargs):
        met.append((allowed if allowed.dtype == torch.bool else ~allowed.isneginf()).any(-1).all().item())
        return kernel(q, k, v, allowed, *args, **kwargs)

    monkeypatch.setattr(module.F, "scaled_dot_product_attention", fragile)
    monkeypatch.setattr(module, "ZEROS_WHERE_NOTHING_IS_SEEN", ())
    y = attend(*inputs, mask, bias)
    assert met == [True]
    assert_same_with_gradients(y, expected, inputs)


def test_dropout_drops_weights_and_keeps_their_mean():
    torch.manual_seed(0)
    q, k = torch.zeros(1, 400, 1, 8), torch.zeros(1, 50, 1, 8)
    y = attend(q, k, torch.ones(1, 50, 1, 8), dropout=0.5)
    assert 0.9 < y.mean() < 1.1
    assert y.std() > 0.05
    assert torch.equal(attend(q, k, torch.ones(1, 50, 1, 8)).round(decimals=5), torch.ones(1, 400, 1, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("T", [1, 3])
@pytest.mark.parametrize("other", [torch.float32, torch.float64])
def test_the_result_has_the_queries_type_also_with_a_bias_of_another(dtype, other, T):
    q, k, v = tensors(T=T, G=2, dtype=dtype)
    for mask in (None, masks(T, 5)):
        assert attend(q, k, v, mask, torch.zeros(H, T, 5, dtype=other)).dtype == dtype


@pytest.mark.parametrize("T", [1, 3])
def test_shapes_are_known_without_memory(T):
    q, k, v = (t.to("meta") for t in tensors(T=T, G=2, E=4))
    mask = torch.ones(B, 1, T, 5, dtype=torch.bool, device="meta")
    assert attend(q, k, v, mask).shape == (B, T, H, 4)
