"""Running statistics equal those of all rows together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policysmith.parts import RunningNormalizer


def chunks(event: tuple[int, ...], *, shift: float = 5.0, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(shift, 3.0, (n, *event)).astype(np.float32) for n in (1, 7, 64, 2, 300)]


@pytest.mark.parametrize("event", [(), (3,), (2, 4, 4)])
@pytest.mark.parametrize("shift", [0.0, 5.0, 1000.0])
def test_chunks_give_the_mean_and_variance_of_all_rows(event, shift):
    part = RunningNormalizer(event)
    parts = chunks(event, shift=shift)
    for chunk in parts:
        part.update(torch.as_tensor(chunk))
    rows = np.concatenate(parts).astype(np.float64)
    assert part.count == len(rows)
    np.testing.assert_allclose(part.mean.numpy(), rows.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(part.variance.numpy(), rows.var(0), rtol=1e-4)


def test_many_small_updates_do_not_drift():
    part = RunningNormalizer((2,))
    rows = np.random.default_rng(0).normal(100.0, 0.5, (5000, 2)).astype(np.float32)
    for row in rows:
        part.update(torch.as_tensor(row[None]))
    np.testing.assert_allclose(part.mean.numpy(), rows.astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_allclose(part.variance.numpy(), rows.astype(np.float64).var(0), rtol=1e-2)


def test_any_leading_dimensions_are_rows():
    flat, folded = RunningNormalizer((3,)), RunningNormalizer((3,))
    x = torch.randn(4, 5, 3)
    flat.update(x.flatten(0, 1))
    folded.update(x)
    assert torch.equal(flat.mean, folded.mean)
    assert flat.count == folded.count == 20


def test_before_the_first_update_it_is_the_identity():
    x = torch.randn(4, 3)
    torch.testing.assert_close(RunningNormalizer((3,))(x), x)


def test_it_normalises_and_clips():
    part = RunningNormalizer((1,), clip=1.5)
    part.update(torch.tensor([[0.0], [2.0], [4.0]]))
    x = torch.tensor([[2.0], [3.0], [1e6], [-1e6]])
    torch.testing.assert_close(part(x).flatten(), torch.tensor([0.0, (3 / 8) ** 0.5, 1.5, -1.5]))


def test_a_constant_feature_stays_finite():
    part = RunningNormalizer((1,))
    part.update(torch.full((10, 1), 7.0))
    assert part(torch.tensor([[7.0], [8.0]])).tolist() == [[0.0], [10.0]]


def test_an_empty_update_changes_nothing():
    part = RunningNormalizer((3,))
    part.update(torch.zeros(0, 3))
    assert part.count == 0
    assert part.mean.isfinite().all()


def test_a_forward_changes_nothing_and_no_gradient_flows_into_an_update():
    part = RunningNormalizer((3,))
    part.update(torch.randn(5, 3, requires_grad=True))
    before = {n: t.clone() for n, t in part.state_dict().items()}
    x = torch.randn(5, 3, requires_grad=True)
    part(x).sum().backward()
    assert x.grad is not None
    assert all(torch.equal(t, before[n]) for n, t in part.state_dict().items())
    assert not any(b.requires_grad for b in part.buffers())


def test_statistics_are_stored():
    part, fresh = RunningNormalizer((3,)), RunningNormalizer((3,))
    part.update(torch.randn(5, 3))
    fresh.load_state_dict(part.state_dict())
    x = torch.randn(2, 3)
    assert torch.equal(fresh(x), part(x))
    assert fresh.count.dtype == torch.float64
    assert list(part.parameters()) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_it_never_learns_from_rows_that_are_not_finite(shape, bad):
    rows = torch.randn(12, *shape)
    ill = torch.cat([rows[:5], torch.full((1, *shape), bad), rows[5:], rows[:1]])
    ill[-1].view(-1)[-1] = bad
    mine, expected = RunningNormalizer(shape), RunningNormalizer(shape)
    for _ in range(2):
        mine.update(ill)
        expected.update(rows)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(mine.state_dict()[name], tensor), name
    mine.update(torch.full((2, *shape), bad))
    mine.update(torch.empty(0, *shape))
    assert torch.equal(mine.count, expected.count)


def test_its_statistics_stay_finite_for_the_largest_numbers():
    normalizer = RunningNormalizer((1,))
    for _ in range(3):
        normalizer.update(torch.tensor([[1.0], [3e38], [-3e38]]))
    assert all(tensor.isfinite().all() for tensor in normalizer.state_dict().values())
    assert normalizer(torch.tensor([[1.0], [3e38], [-3e38]])).isfinite().all()
