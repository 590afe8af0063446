"""A timeline shows each query what the definition says, and steps and chunks advance a memory alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policysmith.ops.timeline import Timeline, both, over_memory, over_sequence, unpadded

UNSEEN = 999.0  # what lies in slots that no step of the running episode has written
CASES = [(4, (9,)), (4, (2, 3, 4)), (1, (5,)), (8, (3,)), (5, (1, 11)), (3, (3, 1, 3)), (6, (1,) * 8), (2, (7, 2))]
memories = pytest.mark.parametrize(("context", "chunks"), CASES)
seeds = pytest.mark.parametrize("seed", range(5))


def draw(context: int, T: int, seed: int, rows: int = 5):
    """Steps done before, a ring that holds them (step p as the number p - done), new tokens 0 … T-1, starts."""
    generator = torch.Generator().manual_seed(seed)
    done = torch.randint(0, 3 * context, (rows,), generator=generator)
    done[0] = 0
    first = torch.rand(rows, T, generator=generator) < 0.25
    first[-1] = False
    ring = torch.full((rows, context), UNSEEN)
    for b, past in enumerate(done.tolist()):
        for step in range(max(0, past - context), past):
            ring[b, step % context] = step - past
    return done, first, ring, torch.arange(float(T)).expand(rows, -1)


def run(context: int, chunks, done: Tensor, first: Tensor, ring: Tensor, tokens: Tensor):
    """→ for each row and new step what is seen as {token: its step}, then the counter and ring at the end."""
    seen: list[list[dict[float, int]]] = [[] for _ in done]
    start = 0
    for length in chunks:
        begun = first[:, start : start + length]
        ring = torch.where(begun[:, :1], torch.zeros(()), ring)  # as the caller resets
        timeline, done = over_memory(done, begun, length, context)
        keys, ring = timeline.remember(ring, tokens[:, start : start + length])
        mask = timeline.visible().expand(len(done), 1, length, -1)
        for b, row in enumerate(seen):
            for t in range(length):
                at = mask[b, 0, t].nonzero().flatten().tolist()
                row.append({keys[b, s].item(): timeline.key_positions[b, s].item() for s in at})
                assert len(row[-1]) == len(at), "no token is seen twice"
                newest = max(row[-1])
                assert row[-1][newest] == timeline.positions[b, t].item()
        start += length
    return seen, done, ring


def expected(context: int, done: int, first: list[bool]) -> list[dict[float, int]]:
    """By definition: the last `context` tokens of the query's own episode, and their steps in it."""
    episode, step, rows = list(range(-min(done, context), 0)), done, []
    for t, begins in enumerate(first):
        episode, step = ([], 0) if begins else (episode, step)
        episode = [*episode, t][-context:]
        rows.append({float(token): step - t + token for token in episode})
        step += 1
    return rows


@memories
@seeds
def test_a_query_sees_the_last_steps_of_its_own_episode(context, chunks, seed):
    done, first, ring, tokens = draw(context, sum(chunks), seed)
    seen, after, _ = run(context, chunks, done, first, ring, tokens)
    for b, row in enumerate(seen):
        assert row == expected(context, done[b].item(), first[b].tolist())
        assert after[b] == max(row[-1].values()) + 1


@memories
@seeds
def test_the_ring_holds_the_running_episode_and_zeros_behind_a_start(context, chunks, seed):
    done, first, ring, tokens = draw(context, sum(chunks), seed)
    seen, _, after = run(context, chunks, done, first, ring, tokens)
    for b, row in enumerate(seen):
        slots = {step % context: token for token, step in row[-1].items()}
        unwritten = 0.0 if first[b].any() else UNSEEN
        assert after[b].tolist() == [slots.get(s, unwritten) for s in range(context)]


@memories
@seeds
def test_without_starts_given_the_episode_goes_on(context, chunks, seed):
    done, _, ring, tokens = draw(context, sum(chunks), seed)
    start = 0
    plain, given = ring, ring
    p = q = done
    for length in chunks:
        one, p = over_memory(p, None, length, context)
        two, q = over_memory(q, torch.zeros(len(done), length, dtype=torch.bool), length, context)
        for name in ("positions", "key_positions", "mask"):
            a, b = getattr(one, name), getattr(two, name)
            assert torch.equal(a.expand_as(b), b)
        _, plain = one.remember(plain, tokens[:, start : start + length])
        _, given = two.remember(given, tokens[:, start : start + length])
        assert torch.equal(plain, given)
        assert torch.equal(p, q)
        start += length


@pytest.mark.parametrize("length", [1, 5])
def test_gradients_reach_the_cache_and_the_new_entries_that_are_kept(length):
    done, first, _, _ = draw(3, length, 1)
    ring, new = torch.randn(5, 3, 2, 4, requires_grad=True), torch.randn(5, length, 2, 4, requires_grad=True)
    timeline, _ = over_memory(done, first, length, 3)
    keys, after = timeline.remember(ring, new)
    assert keys.shape == (5, 3 if length == 1 else 3 + length, 2, 4)
    (after * torch.arange(1.0, 121).view(5, 3, 2, 4)).sum().backward()
    for b in range(5):
        kept = {v for v in after[b].flatten().tolist() if v}
        from_ring, from_new = ring[b][ring.grad[b] != 0].tolist(), new[b][new.grad[b] != 0].tolist()
        assert {*from_ring, *from_new} == kept


@pytest.mark.parametrize("done", [0, 2, 5])
def test_a_row_alone_advances_as_it_does_among_others(done):
    ring, new = torch.randn(2, 3, 2, requires_grad=True), torch.randn(2, 1, 2, requires_grad=True)
    among, _ = over_memory(torch.tensor([done, 4]), None, 1, 3)
    alone, _ = over_memory(torch.tensor([done]), None, 1, 3)
    want, got = among.remember(ring, new)[1][:1], alone.remember(ring[:1], new[:1])[1]
    assert torch.equal(got, want)
    assert torch.equal(alone.mask, among.mask[:1])
    for a, b in zip(*(torch.autograd.grad((x**2).sum(), (ring, new)) for x in (got, want)), strict=True):
        assert torch.equal(a, b)


def test_layers_share_the_mask_of_one_step_as_a_bias():
    timeline, _ = over_memory(torch.tensor([1, 9]), None, 1, 3)
    mask, bias = timeline.as_bias(timeline.mask, None)
    assert mask is None
    assert bias.exp().bool().tolist() == timeline.mask.tolist()
    assert timeline.as_bias(timeline.mask, None)[1] is bias


def test_masks_of_a_types_own_and_of_sequences_stay_masks():
    timeline, _ = over_memory(torch.tensor([1, 9]), None, 1, 3)
    other, slopes = timeline.mask.clone(), torch.zeros(2, 1, 1, 3)
    assert timeline.as_bias(other, None) == (other, None)
    assert timeline.as_bias(timeline.mask, slopes) == (timeline.mask, slopes)
    chunk, _ = over_memory(torch.tensor([1, 9]), None, 2, 3)
    assert chunk.as_bias(chunk.mask, None) == (chunk.mask, None)


@pytest.mark.parametrize("length", [1, 4])
def test_a_cache_keeps_its_dtype_and_is_not_written_to(length):
    cache = torch.full((2, 3, 4), 7.0, dtype=torch.bfloat16)
    timeline, _ = over_memory(torch.tensor([0, 5]), None, length, 3)
    keys, after = timeline.remember(cache, torch.ones(2, length, 4))
    assert keys.dtype == after.dtype == torch.bfloat16
    assert cache.eq(7).all()
    assert after.eq(1).any()


def test_all_entries_of_a_cache_advance_together():
    timeline, _ = over_memory(torch.tensor([1]), None, 1, 2)
    cache = {"a": torch.tensor([[1.0, 0]]), "b": torch.zeros(1, 2, 3)}
    new = {"a": torch.tensor([[2.0]]), "b": torch.ones(1, 1, 3)}
    seen, after = timeline.remember_all(cache, new)
    assert seen["a"].tolist() == after["a"].tolist() == [[1.0, 2.0]]
    assert after["b"].sum((0, 2)).tolist() == [0, 3]
    assert over_sequence(new["a"]).remember_all(None, new) == (new, None)


def test_a_memory_needs_its_cache_and_a_sequence_has_none():
    memory, _ = over_memory(torch.tensor([1]), None, 1, 2)
    with pytest.raises(ValueError, match="needs the cache that it continues"):
        memory.remember(None, torch.ones(1, 1))
    with pytest.raises(ValueError, match="needs the timeline of a memory"):
        over_sequence(torch.ones(1, 1, 1)).remember(torch.ones(1, 2), torch.ones(1, 1))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 3, 6, 9])
@pytest.mark.parametrize("padded", [False, True])
def test_a_sequence_shows_what_causality_window_and_padding_all_allow(causal, window, padded):
    padding = torch.tensor([[0, 0, 0, 0, 1, 1], [1, 0, 0, 1, 0, 0]]).bool() if padded else None
    timeline = over_sequence(torch.zeros(2, 6, 3), causal=causal, window=window, padding_BT=padding)
    visible = timeline.visible()
    found = torch.ones(2, 1, 6, 6).bool() if visible is None else visible.expand(2, 1, 6, 6)
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(6), torch.arange(6)).tolist():
        near = window is None or abs(i - j) < window
        assert found[b, 0, i, j] == ((j <= i or not causal) and near and not (padded and padding[b, j])), (b, i, j)
    assert timeline.mixing == (not causal and window in (None, 6, 9))
    assert timeline.positions.tolist() == timeline.key_positions.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert timeline.padding is padding


def test_the_plain_triangle_and_the_whole_need_no_mask():
    x = torch.zeros(2, 6, 3)
    triangle, whole = over_sequence(x, causal=True, window=6), over_sequence(x)
    assert (triangle.mask, triangle.causal, whole.mask, whole.causal) == (None, True, None, False)


@pytest.mark.parametrize("length", [1, 4])
def test_distances_are_in_steps(length):
    timeline, _ = over_memory(torch.tensor([6]), None, length, 3)
    tokens = torch.arange(6, 6 + length).unsqueeze(0).float()
    keys, _ = timeline.remember(torch.tensor([[3.0, 4, 5]]), tokens)
    assert torch.equal(timeline.distances()[0, 0].float(), (tokens.T - keys).abs())


def test_a_sequence_longer_than_the_position_knows_is_refused():
    class Short:
        length = 4

    assert over_sequence(torch.zeros(1, 4, 2), Short()).positions.shape == (1, 4)
    with pytest.raises(ValueError, match="a sequence of 5 tokens is longer than the position length=4"):
        over_sequence(torch.zeros(1, 5, 2), Short())


def test_what_layers_share_is_made_once_for_each_key():
    timeline, made = over_sequence(torch.zeros(1, 2, 3)), []
    for key in ("a", "b", "a"):
        assert timeline.shared(key, lambda key=key: made.append(key) or key) == key
    assert made == ["a", "b"]
    assert over_sequence(torch.zeros(1, 2, 3)).common == {}


def test_masks_compose_and_none_allows_everything():
    a, b = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    assert both(None, None) is None
    assert both(a, None) is a
    assert both(None, b) is b
    assert both(a, b).tolist() == [True, False, False]
    assert unpadded(torch.tensor([[False, True]])).tolist() == [[[[True, False]]]]


class Remember(torch.nn.Module):
    """One call of a memory, as a module that can be exported."""

    def forward(self, done: Tensor, first: Tensor, cache: Tensor, new: Tensor):
        timeline, done = over_memory(done, first, new.shape[1], cache.shape[1])
        return *timeline.remember(cache, new), timeline.mask, timeline.distances(), done


@pytest.mark.parametrize("length", [1, 4])
def test_a_call_compiles_and_exports_whole(length):
    done, first, ring, tokens = draw(3, length, 0)
    inputs = (done, first, ring, tokens)
    expected = Remember()(*inputs)
    compiled = torch.compile(Remember(), fullgraph=True, backend="eager")(*inputs)
    exported = torch.export.export(Remember(), inputs).module()(*inputs)
    for found in (compiled, exported):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("length", [1, 4])
def test_an_exported_call_takes_any_number_of_rows(length):
    inputs, rows = draw(3, length, 0), torch.export.Dim("rows")
    exported = torch.export.export(Remember(), inputs, dynamic_shapes=[{0: rows}] * 4, strict=False).module()
    for count in (2, 7):
        given = draw(3, length, 1, rows=count)
        assert all(torch.equal(a, b) for a, b in zip(exported(*given), Remember()(*given), strict=True))


@pytest.mark.parametrize("length", [1, 4])
def test_shapes_are_known_without_memory(length):
    meta = [t.to("meta") for t in draw(3, length, 0)]
    assert [tuple(t.shape) for t in Remember()(*meta)] == [tuple(t.shape) for t in Remember()(*draw(3, length, 0))]


def test_a_timeline_is_fixed():
    timeline = over_sequence(torch.zeros(1, 2, 3))
    assert isinstance(timeline, Timeline)
    with pytest.raises(AttributeError):
        timeline.causal = True
