"""Categories and images: embeddings, one-hot vectors, pixels."""

from __future__ import annotations

import pytest
import torch

from policysmith.parts import Embedding, ImageEncoder, OneHot, ToFloat


def test_an_embedding_of_one_variable_is_a_row_of_its_table():
    part = Embedding((5,), dim=3)
    index = torch.tensor([4, 0])
    assert torch.equal(part(index), part.table.weight[index])


def test_every_variable_has_rows_of_its_own():
    part = Embedding((2, 3, 4), (3,), dim=3)
    assert part.table.num_embeddings == 9
    index = torch.tensor([[1, 2, 3], [0, 0, 0]])
    rows = torch.tensor([[1, 2 + 2, 5 + 3], [0, 2, 5]])
    assert torch.equal(part(index), part.table.weight[rows].flatten(-2))
    assert part(torch.zeros(6, 7, 3, dtype=torch.int64)).shape == (6, 7, 9)


def test_one_variable_is_one_vector_a_row_with_or_without_an_axis_of_its_own():
    """MultiDiscrete([5]) gives (B, 1), Discrete(5) gives (B,)."""
    for event in ((), (1,)):
        index = torch.zeros(2, *event, dtype=torch.int64)
        assert Embedding((5,), event, dim=3)(index).shape == (2, 3)
        assert OneHot((5,), event)(index).shape == (2, 5)


def test_variables_in_a_table_are_read_row_by_row():
    index = torch.tensor([[[0, 1], [2, 3]]])
    assert OneHot((1, 2, 3, 4), (2, 2))(index).tolist() == [[1, 0, 1, 0, 0, 1, 0, 0, 0, 1]]
    part = Embedding((1, 2, 3, 4), (2, 2), dim=3)
    assert torch.equal(part(index), part.table.weight[[0, 2, 5, 9]].flatten().unsqueeze(0))


def test_an_index_out_of_range_is_an_error_in_an_embedding():
    with pytest.raises(IndexError):
        Embedding((5,), dim=3)(torch.tensor([5]))


@pytest.mark.parametrize("sizes", [(2, 3, 4), (3,), (1, 1)])
def test_one_hot_equals_torchs(sizes):
    index = torch.stack([torch.arange(6) % n for n in sizes], -1)
    expected = torch.cat([torch.nn.functional.one_hot(c, n) for c, n in zip(index.unbind(-1), sizes, strict=True)], -1)
    found = OneHot(sizes, (len(sizes),))(index)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected.float())


def test_an_index_out_of_range_is_zeros_in_one_hot():
    assert not OneHot((3,))(torch.tensor([-1, 3])).any()


@pytest.mark.parametrize("kind", ["table", "one hot"])
def test_category_tables_are_no_part_of_the_state(kind):
    part = Embedding((2, 3), (2,), dim=4) if kind == "table" else OneHot((2, 3), (2,))
    assert set(part.state_dict()) == ({"table.weight"} if kind == "table" else set())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_pixels_become_channels_first_floats(dtype):
    image = torch.randint(0, 255, (2, 4, 5, 3)).to(dtype)
    found = ImageEncoder("hwc")(image)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, image.permute(0, 3, 1, 2).float() / 255)
    torch.testing.assert_close(ImageEncoder("chw", 2.0)(image), image.float() / 2)
    torch.testing.assert_close(ImageEncoder("hw", 1.0)(image), image.float().unsqueeze(-3))


def test_the_brightest_pixel_is_one():
    assert ImageEncoder("chw")(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).item() == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.float64, torch.bool])
def test_numbers_become_floats_divided_by_the_scale(dtype):
    x = torch.tensor([[0, 1, 1]]).to(dtype)
    assert torch.equal(ToFloat()(x), torch.tensor([[0.0, 1.0, 1.0]]))
    torch.testing.assert_close(ToFloat(4.0)(x), torch.tensor([[0, 0.25, 0.25]]))
