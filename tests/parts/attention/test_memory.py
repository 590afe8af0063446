"""Every self-attention type as an episode's memory: stepping, chunks and the definition agree (act = learn)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policysmith.ops.timeline import over_memory

from .cases import (
    CASES,
    DIM,
    TIGHT,
    assert_same,
    episodes,
    every_case,
    every_position,
    gradients,
    position,
    remembered,
    tokens,
)  # fmt: skip

ROWS, T, CONTEXT = 3, 11, 4
CHUNKS = {"steps": (1,) * T, "whole": (T,), "chunks": (4, 1, 6), "short-chunks": (2, 3, 2, 4)}
every_chunking = pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)


def starts(seed: int = 0) -> torch.Tensor:
    """Random starts; the last row has none but at its beginning, so its ring turns over."""
    first = torch.rand(ROWS, T, generator=torch.Generator().manual_seed(seed)) < 0.3
    first[:, 0], first[-1, 1:] = True, False
    return first


@every_case
@every_position
def test_equals_its_definition_over_each_episode(case, name):
    module, x, first = case.build(), tokens(ROWS, T).requires_grad_(), starts()
    y, _, _ = remembered(module, position(name), x, first, CHUNKS["chunks"], CONTEXT)
    slow = torch.stack(
        [
            torch.cat([case.slow(module, row[run], lambda i, j: 0 <= i - j < CONTEXT, name) for run in episodes(cuts)])
            for row, cuts in zip(x, first.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(y, slow, **TIGHT)
    assert_same(gradients(y, module, x), gradients(slow, module, x))


@every_case
@every_position
@pytest.mark.parametrize("context", [1, 4, 20])
@pytest.mark.parametrize("seed", range(2))
def test_steps_and_chunks_agree_in_outputs_state_and_gradients(case, name, context, seed):
    module, x, first = case.build(), tokens(ROWS, T).requires_grad_(), starts(seed)
    stepped, *end = remembered(module, position(name), x, first, CHUNKS["steps"], context)
    reference = gradients(stepped, module, x)
    for chunks in list(CHUNKS.values())[1:]:
        y, *other = remembered(module, position(name), x, first, chunks, context)
        torch.testing.assert_close(y, stepped, **TIGHT)
        torch.testing.assert_close(other, end, **TIGHT)
        assert_same(gradients(y, module, x), reference)


@every_case
@every_chunking
def test_gradients_pass_through_the_cache_that_comes_in(case, chunks):
    """A state may come from a burn-in whose weights learn too."""
    module, x, first = case.build(), tokens(ROWS, T), torch.zeros(ROWS, T, dtype=torch.bool)

    def run(chunks):
        cache = {n: torch.randn_like(c).requires_grad_() for n, c in module.initial_cache(ROWS, CONTEXT).items()}
        cache = {n: c.detach().copy_(torch.linspace(-1, 1, c.numel()).view(c.shape)) for n, c in cache.items()}
        leaves = [c.requires_grad_() for c in cache.values()]
        done, outputs, start = torch.tensor([0, 2, 9]), [], 0
        for length in chunks:
            timeline, done = over_memory(done, first[:, start : start + length], length, CONTEXT, position("rope"))
            y, cache = module(x[:, start : start + length], timeline, cache)
            outputs.append(y)
            start += length
        ends = [c for c in cache.values()]
        y = torch.cat([o.flatten(1) for o in (*outputs, *ends)], 1)
        return y, gradients(y, module, *leaves)

    (expected, slow), (found, fast) = run(CHUNKS["steps"]), run(chunks)
    torch.testing.assert_close(found[:, : T * DIM].sum(), expected[:, : T * DIM].sum(), **TIGHT)
    torch.testing.assert_close(found[:, T * DIM :], expected[:, T * DIM :], **TIGHT)
    used = [name for name, gradient in slow.items() if name.startswith("input") and gradient[1:].any()]
    assert len(used) == len(module.initial_cache(1, 1))
    assert fast.keys() == slow.keys()


@every_case
@every_chunking
def test_a_start_hides_what_lies_in_the_cache_even_nan(case, chunks):
    module, x, first = case.build(), tokens(ROWS, T), starts()
    garbage = {name: torch.full_like(c, torch.nan) for name, c in module.initial_cache(ROWS, CONTEXT).items()}
    expected, *end = remembered(module, position("rope"), x, first, chunks, CONTEXT)
    found, *other = remembered(module, position("rope"), x, first, chunks, CONTEXT, garbage)
    assert torch.equal(found, expected)
    torch.testing.assert_close(other, end, rtol=0, atol=0)


@every_case
@every_chunking
def test_nothing_before_a_start_changes_anything_after_it(case, chunks):
    module, x, first = case.build(), tokens(ROWS, T), starts()
    first[:, 6] = True
    other = x.clone()
    other[:, :6] += 1
    y, *end = remembered(module, position("rope"), x, first, chunks, CONTEXT)
    z, *after = remembered(module, position("rope"), other, first, chunks, CONTEXT)
    assert torch.equal(y[:, 6:], z[:, 6:])
    torch.testing.assert_close(after, end, rtol=0, atol=0)
    assert (y[:, :6] != z[:, :6]).any(-1).all()


@every_case
def test_a_query_sees_as_far_back_as_the_context_and_no_farther(case):
    if case.type in ("window", "pyramid"):
        return  # they see less; the definition above says what
    module, x, first = case.build(), tokens(1, T), torch.arange(T).eq(0).unsqueeze(0)
    y, _, _ = remembered(module, position("rope"), x, first, (T,), CONTEXT)
    for back, seen in ((CONTEXT - 1, True), (CONTEXT, False)):
        other = x.clone()
        other[:, T - 1 - back] += 1
        z, _, _ = remembered(module, position("rope"), other, first, (T,), CONTEXT)
        assert (z[:, -1] != y[:, -1]).any() == seen


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_caches_start_as_zeros_and_keep_the_modules_type(case, dtype):
    module = case.build(dtype)
    cache = module.initial_cache(2, CONTEXT)
    assert all(c.dtype == dtype and c.shape[:2] == (2, CONTEXT) and not c.any() for c in cache.values())
    assert not any(c.requires_grad for c in cache.values())
    for length in (1, 3):
        timeline, _ = over_memory(torch.tensor([0, 7]), None, length, CONTEXT, position("alibi"))
        y, after = module(tokens(2, length, dtype), timeline, cache)
        assert y.dtype == dtype
        assert after.keys() == cache.keys()
        assert {(c.dtype, c.shape) for c in after.values()} == {(c.dtype, c.shape) for c in cache.values()}
        assert not any(c.any() for c in cache.values()), "a cache is never written to"


@every_case
def test_rows_of_a_batch_are_alone(case):
    module, x, first = case.build(), tokens(ROWS, T), starts()
    y, _, _ = remembered(module, position("rope"), x, first, (3, 1, 7), CONTEXT)
    for row in range(ROWS):
        one = slice(row, row + 1)
        alone, _, _ = remembered(module, position("rope"), x[one], first[one], (3, 1, 7), CONTEXT)
        torch.testing.assert_close(alone, y[one], **TIGHT)


@every_case
def test_a_memory_without_its_cache_is_refused(case):
    timeline, _ = over_memory(torch.zeros(1, dtype=torch.int64), None, 1, CONTEXT)
    with pytest.raises(ValueError, match="needs the cache that it continues"):
        case.build()(tokens(1, 1), timeline)


class Call(nn.Module):
    """One call of a memory with all its tensors as arguments."""

    def __init__(self, case, name: str) -> None:
        super().__init__()
        self.attention, self.position = case.build(), position(name)

    def forward(self, x, done, first, cache):
        timeline, done = over_memory(done, first, x.shape[1], CONTEXT, self.position)
        y, cache = self.attention(x, timeline, cache)
        return y, done, cache


def arguments(module: Call, length: int, rows: int = 2):
    cache = {n: c + 0.3 for n, c in module.attention.initial_cache(rows, CONTEXT).items()}
    first = torch.tensor([[True] + [False] * (length - 1)] * rows)
    return tokens(rows, length), torch.arange(rows) * 5 + 2, first, cache


EACH = [(name, "rope", 1) for name in CASES if name == CASES[name].type]
one_of_each = pytest.mark.parametrize(
    ("type_", "name", "length"), [*EACH, ("mla", "alibi", 1), ("mla", "rope", 3), ("mha", "alibi", 3)]
)


@one_of_each
def test_a_call_compiles_whole(type_, name, length):
    torch._dynamo.reset()
    call = Call(CASES[type_], name)
    inputs = arguments(call, length)
    compiled = torch.compile(call, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), call(*inputs), **TIGHT)


@one_of_each
def test_a_call_exports_for_batches_of_any_size(type_, name, length):
    call = Call(CASES[type_], name)
    inputs, rows = arguments(call, length), {0: torch.export.Dim("rows", min=1, max=64)}
    exported = torch.export.export(call, inputs, dynamic_shapes=(rows, rows, rows, dict.fromkeys(inputs[3], rows)))
    for number in (1, 2, 5):
        inputs = arguments(call, length, number)
        torch.testing.assert_close(exported.module()(*inputs), call(*inputs), **TIGHT)


@every_case
@pytest.mark.parametrize("length", [1, 3])
def test_shapes_are_known_without_memory(case, length):
    call = Call(case, "rope")
    y, done, cache = call(*arguments(call, length))
    x, *rest = arguments(call, length)
    call.to("meta")
    move = lambda t: {n: c.to("meta") for n, c in t.items()} if isinstance(t, dict) else t.to("meta")  # noqa: E731
    y_meta, done_meta, cache_meta = call(x.to("meta"), *map(move, rest))
    assert (y_meta.shape, done_meta.shape) == (y.shape, done.shape)
    assert {n: c.shape for n, c in cache_meta.items()} == {n: c.shape for n, c in cache.items()}
    assert {c.device.type for c in call.attention.initial_cache(2, 3).values()} == {"meta"}


def test_the_cases_cover_every_type_that_can_be_a_memory():
    assert {case.type for case in CASES.values()} == {"mha", "gqa", "mqa", "mla", "window", "pyramid"}
