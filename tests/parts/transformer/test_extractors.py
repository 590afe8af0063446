"""Convolutions over time: their widths, what a step sees, and norms of the right axis."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.registry import default_registry, part

B, T, FEATURES, H, E = 2, 9, 5, 12, 7
KINDS = ["basic", "resnet", "inception"]
NORMS = default_registry.names("norm")


def extractor(kind: str, causal: bool = False, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    spec = {"type": kind, "hidden": H, "dim": E, **options}
    return part("component", {"type": "sequence_extractor", "extractor": spec, "causal": causal}).build(
        event_shape=(T, FEATURES)
    )


def window(seed: int = 1) -> Tensor:
    return torch.randn(B, T, FEATURES, generator=torch.Generator().manual_seed(seed))


def reach(module: nn.Module) -> tuple[int, int]:
    """How many steps behind and ahead of a step in the middle its output looks."""
    x, middle = window().double().requires_grad_(), T // 2
    (grad,) = torch.autograd.grad(module.double().eval()(x)[:, middle].square().sum(), x)
    steps = grad.abs().amax((0, 2)).nonzero().flatten()
    return middle - int(steps[0]), int(steps[-1]) - middle


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_depth_gives_the_width_asked_for(kind, layers, causal):
    assert extractor(kind, causal, layers=layers)(window()).shape == (B, T, E)
    assert extractor(kind, causal, layers=layers, dim=None)(window()).shape == (B, T, H)


@pytest.mark.parametrize(
    ("kind", "options", "half"),
    [
        ("basic", {"layers": 1}, 1),
        ("basic", {"layers": 2}, 2),
        ("basic", {"layers": 1, "kernel": 5}, 2),
        ("resnet", {"layers": 1}, 2),
        ("resnet", {"layers": 2}, 4),
        ("inception", {"layers": 1}, 2),
        ("inception", {"layers": 2}, 4),
    ],
)
def test_a_step_sees_as_far_as_its_kernels_reach_and_when_causal_only_back(kind, options, half):
    assert reach(extractor(kind, **options)) == (half, half)
    assert reach(extractor(kind, causal=True, **options)) == (min(2 * half, T // 2), 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [n for n in NORMS if n != "instance"])
def test_no_norm_lets_a_causal_step_see_ahead(kind, norm):
    module, x = extractor(kind, causal=True, norm=norm).eval(), window()
    other = x.clone()
    other[:, 5:] = window(2)[:, 5:]
    found, changed = module(x), module(other)
    torch.testing.assert_close(found[:, :5], changed[:, :5])
    assert not torch.equal(found[:, 5:], changed[:, 5:])


@pytest.mark.parametrize("kind", KINDS)
def test_instance_norm_over_time_is_refused_when_causal(kind):
    assert extractor(kind, norm="instance")(window()).shape == (B, T, E)
    with pytest.raises(
        ValueError, match="norm: 'instance' lets a step see the whole sequence, which causal: true forb"
    ):
        extractor(kind, causal=True, norm="instance")


@pytest.mark.parametrize("causal", [False, True])
def test_the_basic_extractor_is_torch_convolution_activation_and_norm(causal):
    module, x = extractor("basic", causal), window()
    y = x.transpose(1, 2)
    for index in (0, 4):
        conv, norm = module[index], module[index + 2]
        y = F.conv1d(F.pad(y, (2, 0) if causal else (1, 1)), conv.weight, conv.bias)
        y = F.layer_norm(F.gelu(y).transpose(1, 2), norm.normalized_shape, norm.weight, norm.bias).transpose(1, 2)
    torch.testing.assert_close(module(x), y.transpose(1, 2))


def test_a_residual_block_is_the_sum_of_its_input_and_two_normed_convolutions():
    block, x = extractor("resnet").blocks[0], torch.randn(B, T, H)
    y = F.gelu(block.norm1(block.conv1(x)))
    torch.testing.assert_close(block(x), F.gelu(x + block.norm2(block.conv2(y))))


def test_inception_shares_its_width_among_three_kernels():
    for hidden in (12, 13, 14):
        convs = extractor("inception", hidden=hidden).blocks[0].convs
        assert [c.kernel_size[0] for c in convs] == [1, 3, 5]
        assert sum(c.out_channels for c in convs) == hidden
    with pytest.raises(ValueError, match="hidden=2 is too small for 3 parallel convolutions"):
        extractor("inception", hidden=2)


def test_parameters_of_the_basic_extractor_are_those_of_the_closed_form():
    """3FH + H + 2H + 3HE + E + 2E for two layers with a norm of weights and biases."""
    count = sum(p.numel() for p in extractor("basic").parameters())
    assert count == 3 * FEATURES * H + H + 2 * H + 3 * H * E + E + 2 * E


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_for_training(kind):
    module, x = extractor(kind, dropout=0.5), window()
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_a_single_observation_is_no_window():
    with pytest.raises(ValueError, match=r"a window \(T, features\) is expected, found \(5,\)"):
        part("component", "sequence_extractor").build(event_shape=(5,))
