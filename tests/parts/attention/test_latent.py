"""Multi-head latent attention: absorbed steps equal expanded ones, and its cache is small."""

from __future__ import annotations

import pytest
import torch

from policysmith.ops.timeline import over_memory
from policysmith.parts import MultiHeadAttention, MultiHeadLatentAttention
from tests.reference.attention import turned

from .cases import TIGHT, assert_same, gradients, position, remembered, tokens

WIDTHS = {"q_rank": 5, "kv_rank": 7, "rope_dim": 4, "nope_dim": 3, "value_dim": 8, "bias": True}


def build(dtype=torch.float64, **options):
    torch.manual_seed(0)
    module = MultiHeadLatentAttention(**{"dim": 24, "heads": 6, "rope_dim": 4, **options})
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, parameter.dim() == 1, 0.4)
    return module.to(dtype)


def remembered_twice(module, name, monkeypatch, T=9):
    """Outputs and gradients of stepping with absorbed weights, and with expanded keys and values."""
    dtype = next(module.parameters()).dtype
    x, first = tokens(3, T, dtype).requires_grad_(), torch.rand(3, T) < 0.2
    found = []
    for absorbed in (True, False):
        with monkeypatch.context() as patch:
            if absorbed:
                patch.setattr(module, "_expanded", None)
            else:
                patch.setattr(module, "_absorbed", module._expanded)
            y, cache, _ = remembered(module, position(name), x, first, (1,) * T, 4)
        found.append((y, cache, gradients(y, module, x)))
    return found


@pytest.mark.parametrize("options", [{}, WIDTHS], ids=["default", "sized"])
@pytest.mark.parametrize("name", ["rope", "alibi", "none"])
def test_an_absorbed_step_equals_an_expanded_one(options, name, monkeypatch):
    (y, cache, grads), (z, other, expected) = remembered_twice(build(**options), name, monkeypatch)
    torch.testing.assert_close(y, z, **TIGHT)
    torch.testing.assert_close(cache, other, **TIGHT)
    assert_same(grads, expected)


def test_in_single_precision_they_agree_to_five_digits(monkeypatch):
    (y, *_), (z, *_) = remembered_twice(build(torch.float32), "rope", monkeypatch)
    torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("length", "way"), [(1, "_absorbed"), (2, "_expanded")])
def test_one_step_is_absorbed_and_more_are_expanded(length, way, monkeypatch):
    module, called = build(), []
    for name in ("_absorbed", "_expanded"):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, n=name, f=original: called.append(n) or f(*a))
    timeline, _ = over_memory(torch.zeros(2, dtype=torch.int64), None, length, 4)
    module(tokens(2, length), timeline, module.initial_cache(2, 4))
    module(tokens(2, 1))
    assert called == [way, "_expanded"]


def test_a_cache_holds_the_latent_and_the_shared_key_only():
    cache = build(kv_rank=7, rope_dim=4).initial_cache(3, 5)
    assert {name: tuple(t.shape) for name, t in cache.items()} == {"latent": (3, 5, 7), "shared_key": (3, 5, 4)}


def test_by_default_a_cache_is_a_sixth_of_multi_head_attentions():
    def size(module):
        return sum(t[0, 0].numel() for t in module.initial_cache(1, 1).values())

    ours, theirs = size(MultiHeadLatentAttention(dim=256)), size(MultiHeadAttention(dim=256))
    assert theirs == 512
    assert ours == 80 <= theirs / 6


def test_the_cached_latent_is_normed_and_the_shared_key_turned():
    module, x = build(), tokens(1, 1)
    timeline, _ = over_memory(torch.tensor([3]), None, 1, 4, position("rope"))
    _, cache = module(x, timeline, module.initial_cache(1, 4))
    compressed = module.latent(x)[0, 0]
    torch.testing.assert_close(cache["latent"][0, 3], module.latent_norm(compressed[: module.kv_rank]))
    torch.testing.assert_close(cache["shared_key"][0, 3], turned(compressed[module.kv_rank :], 3))
    assert not cache["latent"][0, :3].any()


def test_with_all_widths_given_heads_need_not_divide_the_width():
    module = MultiHeadLatentAttention(dim=25, heads=8, nope_dim=4, value_dim=4, rope_dim=2)
    assert module(torch.zeros(1, 2, 25))[0].shape == (1, 2, 25)
    with pytest.raises(ValueError, match="dim=25 is not a multiple of heads=8"):
        MultiHeadLatentAttention(dim=25, heads=8, nope_dim=4)


def test_the_expansions_have_no_bias():
    module = build(bias=True, q_rank=5)
    biased = {name for name, _ in module.named_parameters() if name.endswith("bias")}
    assert biased == {"query.down.bias", "latent.bias", "out.bias"}
