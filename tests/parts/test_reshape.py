"""Other shapes of an event, and parts of it, whatever batch dimensions lead."""

import pytest
import torch

from policysmith.parts import CentrePixel, Expand, Flatten, Fold, Slice

SHAPE = (4, 3, 5)
BATCHES = pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)


@BATCHES
@pytest.mark.parametrize("axis", range(-3, 3))
def test_a_slice_takes_its_entries_of_one_axis(batch, axis):
    x = torch.randn(*batch, *SHAPE)
    index = [slice(None)] * 3
    index[axis] = slice(1, 3)
    assert torch.equal(Slice(SHAPE, 1, 3, axis)(x), x[(..., *index)])


def test_a_slice_without_an_end_takes_the_rest():
    x = torch.randn(2, 7)
    assert torch.equal(Slice((7,), 4)(x), x[:, 4:])


@pytest.mark.parametrize(
    ("start", "stop", "axis", "message"),
    [
        (2, 2, -1, "from 2 to 2 of an axis of 7"),
        (5, 8, 0, "from 5 to 8 of an axis of 7"),
        (0, 1, 1, "axis 1 of an event \\(7,\\), which has 1 axes"),
        (0, 1, -2, "axis -2 of an event"),
    ],
)
def test_a_slice_that_is_none_is_refused(start, stop, axis, message):
    with pytest.raises(ValueError, match=message):
        Slice((7,), start, stop, axis)


@BATCHES
@pytest.mark.parametrize("axis", range(-4, 4))
def test_expand_repeats_along_a_new_axis(batch, axis):
    x = torch.randn(*batch, *SHAPE)
    y = Expand(SHAPE, 6, axis)(x)
    new = axis - 4 if axis >= 0 else axis
    assert y.shape[new] == 6 and y.dim() == x.dim() + 1
    assert all(torch.equal(part, x) for part in y.unbind(new))


@BATCHES
def test_fold_flattens_two_axes_that_lie_together(batch):
    x = torch.randn(*batch, *SHAPE)
    assert torch.equal(Fold(SHAPE)(x), x.flatten(-2))
    assert torch.equal(Fold(SHAPE, 1, 0)(x), x.flatten(-3, -2))


def test_fold_over_another_axis_keeps_the_order_of_memory():
    x = torch.randn(2, *SHAPE)
    assert torch.equal(Fold(SHAPE, 2, 0)(x), x.reshape(2, 20, 3))


def test_fold_forwards_is_refused():
    with pytest.raises(ValueError, match="folded into an earlier one"):
        Fold(SHAPE, 0, 1)


def test_the_centre_is_where_both_sides_are_as_long():
    x = torch.arange(2 * 15.0).view(1, 2, 3, 5)
    assert CentrePixel((2, 3, 5))(x).tolist() == [[7.0, 22.0]]
    with pytest.raises(ValueError, match="3×4 has no pixel in the middle"):
        CentrePixel((2, 3, 4))


def test_flatten_makes_a_vector_of_every_event():
    assert Flatten((2, 2))(torch.zeros(5, 6, 2, 2)).shape == (5, 6, 4)
    assert Flatten(())(torch.zeros(5, 6)).shape == (5, 6, 1)
    assert Flatten((3,))(torch.zeros(5, 3)).shape == (5, 3)
