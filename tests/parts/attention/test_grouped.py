"""Multi-head attention is torch's; sharing keys is repeating their weights; options are checked with their values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policysmith.ops.timeline import over_sequence
from policysmith.parts import GroupedQueryAttention, MultiHeadAttention, MultiQueryAttention

from .cases import TIGHT, tokens


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention_is_torchs(bias, causal):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(24, 4, bias=bias, batch_first=True, dtype=torch.float64)
    ours = MultiHeadAttention(dim=24, heads=4, bias=bias).double()
    names = ("query", "key", "value")
    state = dict(zip((f"{n}.weight" for n in names), theirs.in_proj_weight.chunk(3), strict=True))
    state["out.weight"] = theirs.out_proj.weight
    if bias:
        nn.init.normal_(theirs.in_proj_bias)
        nn.init.normal_(theirs.out_proj.bias)
        state |= dict(zip((f"{n}.bias" for n in names), theirs.in_proj_bias.chunk(3), strict=True))
        state["out.bias"] = theirs.out_proj.bias
    ours.load_state_dict(state)
    x = tokens(2, 7)
    mask = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    expected, _ = theirs(x, x, x, attn_mask=mask, need_weights=False)
    torch.testing.assert_close(ours(x, over_sequence(x, causal=causal))[0], expected, **TIGHT)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_sharing_a_key_head_is_giving_each_query_head_a_copy(kv_heads):
    torch.manual_seed(0)
    shared = GroupedQueryAttention(dim=24, heads=4, kv_heads=kv_heads).double()
    whole = MultiHeadAttention(dim=24, heads=4).double()
    state = shared.state_dict()
    for name in ("key.weight", "value.weight"):
        state[name] = state[name].unflatten(0, (kv_heads, 6)).repeat_interleave(4 // kv_heads, 0).flatten(0, 1)
    whole.load_state_dict(state)
    x = tokens(2, 7)
    torch.testing.assert_close(shared(x)[0], whole(x)[0], **TIGHT)


def test_one_key_head_is_multi_query_attention():
    torch.manual_seed(0)
    grouped, single = GroupedQueryAttention(24, 4, kv_heads=1), MultiQueryAttention(24, 4)
    single.load_state_dict(grouped.state_dict())
    x = tokens(2, 7, torch.float32)
    assert torch.equal(single(x)[0], grouped(x)[0])


def test_parameters_and_caches_are_those_of_the_key_heads():
    sizes = {}
    for name, module in {
        "mha": MultiHeadAttention(dim=32, heads=8),
        "gqa": GroupedQueryAttention(dim=32, heads=8),
        "mqa": MultiQueryAttention(dim=32, heads=8),
    }.items():
        cache = sum(t[0, 0].numel() for t in module.initial_cache(1, 1).values())
        sizes[name] = (sum(p.numel() for p in module.parameters()), cache)
    assert sizes == {"mha": (4 * 32**2, 64), "gqa": (2 * 32**2 + 2 * 32 * 8, 16), "mqa": (2 * 32**2 + 2 * 32 * 4, 8)}


def test_heads_must_divide():
    with pytest.raises(ValueError, match=r"^dim=250 is not a multiple of heads=8$"):
        MultiHeadAttention(dim=250)
    with pytest.raises(ValueError, match=r"^heads=8 is not a multiple of kv_heads=3$"):
        GroupedQueryAttention(dim=64, kv_heads=3)


def test_a_width_of_heads_of_its_own_frees_the_model_width():
    assert MultiHeadAttention(dim=25, heads=4, head_dim=8)(torch.zeros(1, 3, 25))[0].shape == (1, 3, 25)


def test_normed_queries_and_keys_bound_the_scores():
    """Without norms a hundredfold input makes attention a hard choice; with them it changes nothing."""
    torch.manual_seed(0)
    x = tokens(1, 9)
    for normed in (True, False):
        module = MultiHeadAttention(dim=24, heads=4, qk_norm=normed).double()
        same = torch.allclose(module(100 * x)[0] / 100, module(x)[0], atol=1e-4)
        assert same == normed
