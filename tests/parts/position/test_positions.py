"""The types of the slot `position`: what each adds, turns or biases, by definition."""

from __future__ import annotations

import math

import pytest
import torch

from policysmith.ops.timeline import over_memory, over_sequence
from policysmith.parts.position.alibi import alibi_slopes
from policysmith.registry import default_registry, part

DIM = 6
STEPS = torch.tensor([[0, 1, 5], [2, 0, 300]])
PLACES = {"alibi": "bias", "learned": "embed", "none": "", "rope": "rotate", "sinusoidal": "embed"}
NAMES = list(PLACES)


def build(name, **options):
    torch.manual_seed(0)
    return part("position", {"type": name, **options}).build(dim=DIM)


def test_the_slot_has_these_types():
    assert set(NAMES) <= set(default_registry.names("position"))


@pytest.mark.parametrize("name", NAMES)
def test_each_acts_in_one_place(name):
    module, x = build(name), torch.randn(2, 3, DIM)
    timeline = over_sequence(x)
    acts = {
        "embed": not torch.equal(module.embed(x, STEPS), x),
        "rotate": not torch.equal(module.rotate(x.unsqueeze(2), timeline), x.unsqueeze(2)),
        "bias": module.bias(2, timeline) is not None,
    }
    assert acts == {place: place == PLACES[name] for place in acts}


@pytest.mark.parametrize("name", ["learned", "sinusoidal"])
def test_embedding_keeps_the_dtype_and_goes_by_each_rows_steps(name):
    module, x = build(name, **({"length": 301} if name == "learned" else {})), torch.zeros(2, 3, DIM)
    added = module.embed(x, STEPS)
    assert torch.equal(added[0, 0], added[1, 1])
    assert not torch.equal(added[0, 0], added[0, 1])
    assert torch.equal(module.embed(x, STEPS[:1])[1], added[0])
    assert module.to(torch.bfloat16).embed(x.bfloat16(), STEPS).dtype == torch.bfloat16


def test_sinusoidal_positions_are_waves_at_falling_rates():
    found = build("sinusoidal", base=100.0).double().embed(torch.ones(2, 3, DIM, dtype=torch.float64), STEPS)
    for b, t, d in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(DIM)).tolist():
        wave = math.sin if d % 2 == 0 else math.cos
        expected = 1 + wave(STEPS[b, t].item() * 100.0 ** (-(d // 2 * 2) / DIM))
        assert found[b, t, d].item() == pytest.approx(expected, abs=1e-12)


def test_sinusoidal_positions_need_pairs():
    with pytest.raises(ValueError, match="dim=7 is odd"):
        part("position", "sinusoidal").build(dim=7)


def test_learned_positions_come_from_a_table_whose_end_is_shared():
    module, x = build("learned", length=3), torch.ones(1, 4, DIM)
    found = module.embed(x, torch.tensor([[0, 2, 3, 1000]]))
    table = module.table.weight
    assert torch.equal(found[0], 1 + table[[0, 2, 2, 2]])
    found.sum().backward()
    assert table.grad[:, 0].tolist() == [1, 0, 3]


def test_a_sequence_longer_than_the_table_is_refused():
    with pytest.raises(ValueError, match="a sequence of 4 tokens is longer than the position length=3"):
        over_sequence(torch.zeros(1, 4, DIM), build("learned", length=3))


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.7])
def test_rope_turns_whole_pairs_of_its_fraction(fraction):
    x = torch.randn(2, 4, 1, 10)
    changed = (build("rope", fraction=fraction).rotate(x, over_sequence(x[:, :, 0])) != x)[:, 1:].all(0).all(0)[0]
    pairs = int(10 * fraction) // 2
    assert changed.tolist() == [True] * 2 * pairs + [False] * (10 - 2 * pairs)


def test_rope_that_would_turn_nothing_is_refused():
    x = torch.zeros(1, 2, 1, 6)
    with pytest.raises(ValueError, match=r"fraction=0\.2 turns no pair of a head of 6 dimensions"):
        build("rope", fraction=0.2).rotate(x, over_sequence(x[:, :, 0]))


def test_rope_is_turned_once_for_all_that_share_a_timeline():
    x, timeline = torch.randn(1, 4, 2, 6), over_sequence(torch.zeros(1, 4, 1))
    rope = build("rope")
    first = rope.rotate(x, timeline)
    assert len(timeline.common) == 1
    assert torch.equal(rope.rotate(x, timeline), first)
    assert len(timeline.common) == 1
    for other in (build("rope", base=50.0), build("rope", fraction=0.5)):
        assert torch.equal(other.rotate(x, timeline), other.rotate(x, over_sequence(torch.zeros(1, 4, 1))))
    assert rope.rotate(x.bfloat16(), timeline).dtype == torch.bfloat16


def test_slopes_are_the_papers_for_a_power_of_two():
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(16)[:3] == pytest.approx([2**-0.5, 2**-1, 2**-1.5])
    assert alibi_slopes(1) == [2.0**-8]
    assert alibi_slopes(2) == [2.0**-4, 2.0**-8]


def test_slopes_of_other_numbers_of_heads_are_filled_up_from_the_next_power():
    assert alibi_slopes(3) == [2.0**-4, 2.0**-8, 2.0**-2]
    assert alibi_slopes(6) == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]
    assert alibi_slopes(12) == pytest.approx(alibi_slopes(8) + alibi_slopes(16)[0::2][:4])
    assert all(len(alibi_slopes(n)) == n == len(set(alibi_slopes(n))) for n in range(1, 40))


def test_alibi_is_minus_slope_times_distance():
    found = build("alibi").bias(3, over_sequence(torch.zeros(1, 4, 1)))
    slopes = alibi_slopes(3)
    expected = [[[-slopes[h] * abs(i - j) for j in range(4)] for i in range(4)] for h in range(3)]
    assert found.tolist() == [expected]


def test_alibi_of_layers_with_other_heads_shares_a_timeline():
    timeline, alibi = over_sequence(torch.zeros(1, 4, 1)), build("alibi")
    assert [alibi.bias(heads, timeline).shape[1] for heads in (3, 2, 3)] == [3, 2, 3]
    assert alibi.bias(2, timeline) is alibi.bias(2, timeline)


def test_alibi_goes_by_steps_not_by_places_in_memory():
    timeline, _ = over_memory(torch.tensor([10]), None, 1, 4)
    assert build("alibi").bias(2, timeline)[0, 0, 0].tolist() == [-2 / 16, -1 / 16, 0, -3 / 16]


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_known_without_memory(name):
    module, x = build(name).to("meta"), torch.zeros(2, 3, DIM, device="meta")
    timeline = over_sequence(x)
    assert module.embed(x, timeline.positions).shape == x.shape
    assert module.rotate(x.unsqueeze(2), timeline).shape == (2, 3, 1, DIM)
