"""Every self-attention type over whole sequences: its definition, causal, windowed and padded as the timeline says."""

from __future__ import annotations

import pytest
import torch

from policysmith.ops.timeline import over_sequence
from policysmith.registry import default_registry, part

from .cases import CASES, DIM, HEADS, TIGHT, assert_same, every_case, every_position, gradients, position, tokens

TIMELINES = {
    "whole": {},
    "causal": {"causal": True},
    "windowed": {"window": 4},
    "causal-windowed": {"causal": True, "window": 4},
}
every_timeline = pytest.mark.parametrize("options", TIMELINES.values(), ids=TIMELINES)


def near(options):
    """Which keys a query sees, by definition."""
    reach = options.get("window", 100)
    return lambda i, j: abs(i - j) < reach and (j <= i or "causal" not in options)


@every_case
@every_position
@every_timeline
def test_equals_its_definition_in_values_and_gradients(case, name, options):
    module, x = case.build(), tokens(1, 9).requires_grad_()
    y, cache = module(x, over_sequence(x, position(name), **options))
    slow = case.slow(module, x[0], near(options), name).unsqueeze(0)
    assert cache is None
    torch.testing.assert_close(y, slow, **TIGHT)
    assert_same(gradients(y, module, x), gradients(slow, module, x))


@every_case
def test_without_a_timeline_every_token_sees_the_whole_sequence(case):
    module, x = case.build(), tokens(2, 5)
    y, cache = module(x)
    assert cache is None
    assert torch.equal(y, module(x, over_sequence(x))[0])


@every_case
@every_position
def test_a_later_token_changes_nothing_before_it(case, name):
    module, x = case.build(), tokens(2, 9)
    other = x.clone()
    other[:, 5] += 1
    y, z = (module(t, over_sequence(t, position(name), causal=True))[0] for t in (x, other))
    assert torch.equal(y[:, :5], z[:, :5])
    assert (y[:, 5] != z[:, 5]).any(-1).all()


@every_case
@pytest.mark.parametrize("causal", [False, True])
def test_padding_is_as_if_it_were_not_there(case, causal):
    module, x = case.build(), tokens(3, 7)
    padding = torch.arange(7) >= torch.tensor([[7], [4], [1]])
    y, _ = module(x, over_sequence(x, position("rope"), causal, padding_BT=padding))
    for row, length in enumerate((7, 4, 1)):
        alone = x[row : row + 1, :length]
        expected, _ = module(alone, over_sequence(alone, position("rope"), causal))
        torch.testing.assert_close(y[row : row + 1, :length], expected, **TIGHT)


@every_case
@every_position
def test_a_query_that_sees_nothing_gives_what_no_value_gives(case, name):
    module, x = case.build(), tokens(2, 4).requires_grad_()
    padding = torch.tensor([[True] * 4, [False] * 4])
    y, _ = module(x, over_sequence(x, position(name), padding_BT=padding))
    nothing = module.out(torch.zeros(module.out.in_features, dtype=x.dtype))
    assert torch.equal(y[0], nothing.expand(4, -1))
    y.sum().backward()
    assert not x.grad[0].any()
    assert x.grad[1].any()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@every_case
def test_layers_of_one_call_share_nothing_that_differs(case):
    """What a first layer leaves in the timeline must fit a second one, of whatever type and size."""
    x = tokens(1, 9)
    shared = over_sequence(x, position("rope"))
    for other in [*CASES.values(), *CASES.values()]:
        for options in ({}, {"heads": 2, "kv_heads": 2} if other.type == "gqa" else {"heads": 2}):
            extra = {"size": 5} if other.type == "window" and options else {}
            for module in (case.build(), other.build(**options, **extra)):
                expected, _ = module(x, over_sequence(x, position("rope")))
                assert torch.equal(module(x, shared)[0], expected)


@every_case
def test_alibi_of_layers_with_other_heads(case):
    x = tokens(1, 9)
    shared = over_sequence(x, position("alibi"))
    for module in (case.build(), case.build(heads=3) if case.type != "gqa" else case.build(heads=3, kv_heads=3)):
        assert torch.equal(module(x, shared)[0], module(x, over_sequence(x, position("alibi")))[0])


@every_case
def test_dropout_is_for_training_only(case):
    module, x = case.build(dropout=0.5), tokens(2, 6)
    expected, _ = case.build()(x)
    module.eval()
    torch.testing.assert_close(module(x)[0], expected, **TIGHT)
    module.train()
    assert not torch.allclose(module(x)[0], expected)
    assert not torch.equal(module(x)[0], module(x)[0])


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_of_floats_give_the_same_within_their_precision(case, dtype):
    x = tokens(2, 6)
    expected, _ = case.build()(x, over_sequence(x, position("rope"), causal=True))
    x = x.to(dtype)
    found, _ = case.build(dtype)(x, over_sequence(x, position("rope"), causal=True))
    assert found.dtype == dtype
    error = (found.double() - expected).norm() / expected.norm()
    assert error < (1e-5 if dtype == torch.float32 else 0.05)


@every_case
def test_shapes_are_known_without_memory(case):
    module, x = case.build().to("meta"), tokens(2, 6).to("meta")
    assert module(x, over_sequence(x, position("alibi"), causal=True))[0].shape == (2, 6, DIM)


@every_case
def test_heads_must_divide_the_width(case):
    with pytest.raises(ValueError, match=r"dim=250 is not a multiple of heads=8"):
        part("attention", {"type": case.type, "heads": 8}).build(dim=250)


def test_the_types_of_the_slot_say_whether_they_keep_order():
    traits = {n: default_registry.entry("attention", n).traits for n in default_registry.names("attention")}
    assert {n for n, t in traits.items() if t["causal"]} == {case.type for case in CASES.values()}
    assert {n for n, t in traits.items() if not t["causal"]} == {"cross", "latent_queries"}
    assert [n for n, t in traits.items() if t.get("source")] == ["cross"]


def test_the_cases_have_as_many_heads_as_tell_levels_apart():
    assert HEADS > 5
