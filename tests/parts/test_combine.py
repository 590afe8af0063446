"""Several inputs become one."""

from __future__ import annotations

import pytest
import torch

from policysmith.parts import Concat, FiLM, Join, Sum


def film(event: tuple[int, ...], width: int = 3) -> FiLM:
    module = FiLM((event, (width,)))
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    return module


@pytest.mark.parametrize("event", [(5,), (5, 2, 2)])
def test_film_at_zero_weights_is_the_identity(event):
    x = torch.randn(4, *event)
    assert torch.equal(film(event)(x, torch.randn(4, 3)), x)


@pytest.mark.parametrize("event", [(5,), (5, 2, 2)])
def test_film_scales_by_one_plus_gamma_and_shifts_by_beta_channel_by_channel(event):
    module = film(event)
    with torch.no_grad():
        module.scale.bias.copy_(torch.arange(5.0))
        module.shift.bias.copy_(torch.arange(5.0) * 10)
    x = torch.randn(4, *event)
    channel = torch.arange(5.0).view(-1, *[1] * (len(event) - 1))
    torch.testing.assert_close(module(x, torch.randn(4, 3)), x * (1 + channel) + 10 * channel)


def test_film_depends_on_the_condition_of_its_own_row():
    module = FiLM(((5,), (3,)))
    x, condition = torch.randn(4, 5), torch.randn(4, 3)
    expected = x * (1 + module.scale(condition)) + module.shift(condition)
    torch.testing.assert_close(module(x, condition), expected)


@pytest.mark.parametrize("shapes", [((5,),), ((5,), (3, 2)), ((5,), (3,), (3,)), ((5,), ())])
def test_film_takes_x_and_a_condition_vector(shapes):
    with pytest.raises(ValueError, match="film takes x and a condition vector, found shapes"):
        FiLM(shapes)


def test_film_of_a_scalar_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="film"):
        FiLM(((), (3,)))


def test_a_sum_adds_and_leaves_its_inputs_alone():
    a, b, c = torch.ones(2, 3), torch.full((2, 3), 2.0), torch.full((2, 3), 3.0)
    assert torch.equal(Sum(((3,),) * 3)(a, b, c), torch.full((2, 3), 6.0))
    assert torch.equal(a, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"sum needs inputs of one shape, found \(3,\), \(4,\)"):
        Sum(((3,), (4,)))


def test_concat_flattens_events_and_keeps_the_order():
    image, vector, scalar = torch.arange(8.0).view(1, 2, 2, 2), torch.tensor([[8.0, 9.0]]), torch.tensor([10.0])
    joined = Concat(((2, 2, 2), (2,), ()))(image, vector, scalar)
    assert joined.tolist() == [list(range(11))]


def test_any_leading_dimensions_are_kept():
    assert Concat(((2, 2), ()))(torch.zeros(5, 6, 2, 2), torch.zeros(5, 6)).shape == (5, 6, 5)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("axis", [0, -1])
def test_join_puts_maps_side_by_side(batch, axis):
    x, y = torch.randn(*batch, 4, 3), torch.randn(*batch, *((2, 3) if axis == 0 else (4, 1)))
    shapes = ((4, 3), tuple(y.shape[-2:]))
    assert torch.equal(Join(shapes, axis)(x, y), torch.cat([x, y], -2 if axis == 0 else -1))


@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((4, 3), (3,)), ((3,), (1, 3))])
def test_join_refuses_what_differs_elsewhere(shapes):
    with pytest.raises(ValueError, match="join needs shapes that differ in axis 0 only"):
        Join(shapes, 0)
