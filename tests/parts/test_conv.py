"""Convolutional encoders: sizes equal torch's, and the two of the literature are what their papers say."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from policysmith.parts import Conv, Impala, Nature
from policysmith.registry import part


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    list(itertools.product([(13, 16), (16, 16), (21, 14)], [1, 3, 4], [1, 2, 3], [0, 1, 2])),
)
def test_the_computed_size_is_torchs(size, kernel, stride, padding):
    encoder = Conv((2, *size), [4, 3], kernel, [stride, 1], padding, features=5)
    with torch.no_grad():
        assert encoder(torch.zeros(2, 2, *size)).shape == (2, 5)


def test_one_number_or_one_for_each_layer():
    encoder = Conv((3, 20, 20), [4, 5], [5, 3], [2, 1], [1, 0])
    convs = [m for m in encoder if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size[0], m.stride[0], m.padding[0]) for m in convs] == [(5, 2, 1), (3, 1, 0)]
    same = [m for m in Conv((3, 20, 20), [4, 5], 4, 2, 1) if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size[0], m.stride[0], m.padding[0]) for m in same] == [(4, 2, 1), (4, 2, 1)]


@pytest.mark.parametrize("name", ["kernel_size", "stride", "padding"])
def test_a_list_of_the_wrong_length_is_refused_with_both_lengths(name):
    with pytest.raises(ValueError, match=f"{name} has 3 entries for 2 layers of channels"):
        Conv((3, 20, 20), [4, 5], **{name: [1, 1, 1]})


def test_norm_is_over_channels_and_comes_before_the_activation():
    encoder = Conv((3, 8, 8), [4], norm=part("norm", "batch"), activation=part("activation", "gelu"))
    assert [type(m).__name__ for m in encoder] == ["Conv2d", "BatchNorm2d", "GELU", "Flatten"]


def test_a_map_is_flattened_or_kept():
    x = torch.zeros(2, 3, 8, 8)
    assert Conv((3, 8, 8), [4, 5])(x).shape == (2, 5 * 4 * 4)
    assert Conv((3, 8, 8), [4, 5], flatten=False)(x).shape == (2, 5, 4, 4)
    with pytest.raises(ValueError, match="features needs flatten: true"):
        Conv((3, 8, 8), [4, 5], flatten=False, features=7)


def test_a_map_too_small_for_its_kernel_is_refused_with_sizes():
    with pytest.raises(ValueError, match=r"a map of 4×6 is too small for kernel_size=5, stride=1"):
        Conv((3, 8, 10), [4, 5], 5)


def test_nature_is_the_network_of_the_paper():
    encoder = Nature((4, 84, 84))
    convs = [m for m in encoder if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in convs] == [
        (4, 32, 8, 4),
        (32, 64, 4, 2),
        (64, 64, 3, 1),
    ]
    assert encoder[-2].in_features == 3136
    assert encoder(torch.zeros(2, 4, 84, 84)).shape == (2, 512)
    assert sum(p.numel() for p in encoder.parameters()) == 1_684_128


def test_nature_takes_maps_from_36_pixels():
    assert Nature((1, 36, 36), features=None)(torch.zeros(1, 1, 36, 36)).shape == (1, 64)
    with pytest.raises(ValueError, match="too small"):
        Nature((1, 35, 35))


def test_impala_is_the_network_of_the_paper():
    encoder = Impala((3, 64, 64))
    convs = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 15
    assert [m.out_channels for m in convs] == [16] * 5 + [32] * 10
    assert encoder[-2].in_features == 32 * 8 * 8
    assert encoder(torch.zeros(2, 3, 64, 64)).shape == (2, 256)


@pytest.mark.parametrize("size", [(9, 9), (15, 22), (7, 8)])
def test_impala_halves_odd_sizes_as_torch_does(size):
    assert Impala((3, *size), [4, 4], features=6)(torch.zeros(1, 3, *size)).shape == (1, 6)


def test_the_width_of_impala_multiplies_channels():
    convs = [m for m in Impala((3, 16, 16), width=2).modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convs] == [32] * 5 + [64] * 10


def test_a_residual_block_without_weights_is_the_identity():
    block = Impala((3, 8, 8), [4])[2]
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 4, 4, 4)
    assert torch.equal(block(x), x)
