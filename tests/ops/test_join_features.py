"""One vector a row."""

import torch

from policysmith.ops.join_features import join_features


def test_one_vector_is_joined_without_a_copy():
    x = torch.zeros(3, 4)
    assert join_features([x], [1]) is x


def test_whole_numbers_are_joined_as_floats():
    joined = join_features([torch.zeros(2, 3), torch.ones(2, dtype=torch.int64)], [1, 0])
    assert joined.dtype == torch.float32
