"""Norms normalise the right axis, of vectors and of maps; activations are torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from policysmith.parts.norms import sequence_norm
from policysmith.registry import default_registry, part

_RANDOM = torch.Generator().manual_seed(0)
X, MAP, SEQUENCE = (torch.randn(shape, generator=_RANDOM) * 3 + 2 for shape in ((6, 4), (6, 4, 5, 5), (6, 5, 4)))


def norm(name: str, spatial: int = 0, **options) -> nn.Module:
    return part("norm", {"type": name, **options}).build(features=4, spatial=spatial)


def test_layer_norm_is_over_the_features_of_a_row_and_the_channels_of_a_pixel():
    torch.testing.assert_close(norm("layer")(X), F.layer_norm(X, (4,)))
    expected = F.layer_norm(MAP.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2)
    torch.testing.assert_close(norm("layer", 2)(MAP), expected)


def test_rms_norm_divides_by_the_root_of_the_mean_square():
    torch.testing.assert_close(norm("rms")(X), X / (X.square().mean(-1, keepdim=True) + 1e-6).sqrt())
    torch.testing.assert_close(norm("rms", 2)(MAP), MAP / (MAP.square().mean(1, keepdim=True) + 1e-6).sqrt())


@pytest.mark.parametrize(("spatial", "x"), [(0, X), (2, MAP)])
@pytest.mark.parametrize("groups", [1, 2])
def test_group_norm_is_over_groups_of_channels(spatial, x, groups):
    torch.testing.assert_close(norm("group", spatial, groups=groups)(x), F.group_norm(x, groups))


def test_groups_divide_the_features():
    with pytest.raises(ValueError, match="features=4 is not a multiple of groups=3"):
        norm("group", groups=3)


@pytest.mark.parametrize(("spatial", "x"), [(0, X), (1, MAP[..., 0]), (2, MAP), (3, MAP.unsqueeze(-1))])
def test_batch_norm_is_over_rows_and_places(spatial, x):
    found = norm("batch", spatial)(x)
    torch.testing.assert_close(found, F.batch_norm(x, None, None, training=True))


def over(x, *axes):
    """The definition: zero mean and unit variance over the axes."""
    return (x - x.mean(axes, keepdim=True)) / (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize(("name", "axes"), [("layer", (2,)), ("group", (2,)), ("instance", (1,)), ("batch", (0, 1))])
def test_of_a_sequence_each_norm_is_over_its_own_axis(name, axes):
    torch.testing.assert_close(norm(name)(SEQUENCE), over(SEQUENCE, *axes))
    torch.testing.assert_close(sequence_norm(name, 4)(SEQUENCE), over(SEQUENCE, *axes))


def test_groups_of_a_sequence_are_features_of_one_token():
    found = norm("group", groups=2)(SEQUENCE).unflatten(-1, (2, 2))
    torch.testing.assert_close(found, over(SEQUENCE.unflatten(-1, (2, 2)), 3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["group", "batch"])
def test_as_many_steps_as_features_change_no_axis(name):
    """Where T equals F, torch's own modules would take time for the channels without a word."""
    square, module = SEQUENCE[:, :4], norm(name)
    with torch.no_grad():
        module.weight.copy_(torch.arange(1.0, 5))
    torch.testing.assert_close(module(square), over(square, *((2,) if name == "group" else (0, 1))) * module.weight)


@pytest.mark.parametrize(
    ("torch_norm", "name"),
    [(nn.LayerNorm, "layer"), (nn.RMSNorm, "rms"), (nn.GroupNorm, "group"), (nn.InstanceNorm1d, "instance"),
     (nn.BatchNorm1d, "batch")],
)  # fmt: skip
def test_a_norm_class_of_torch_stands_for_the_type_of_the_right_axis(torch_norm, name):
    torch.testing.assert_close(sequence_norm(torch_norm, 4)(SEQUENCE), norm(name)(SEQUENCE))


def test_batch_norm_of_a_sequence_keeps_statistics_of_each_feature():
    module = norm("batch", momentum=1.0)
    module(SEQUENCE)
    torch.testing.assert_close(module.running_mean, SEQUENCE.mean((0, 1)))
    module.eval()
    torch.testing.assert_close(module(SEQUENCE[:1])[0], module(SEQUENCE)[0])


def test_instance_norm_of_an_image_has_weights_and_of_a_vector_is_refused():
    torch.testing.assert_close(norm("instance", 2)(MAP), over(MAP, 2, 3))
    assert [name for name, _ in norm("instance", 2).named_parameters()] == ["weight", "bias"]
    with pytest.raises(ValueError, match=r"averages over time or space, and \(6, 4\) has neither: use layer"):
        norm("instance")(X)


def test_only_instance_norm_looks_at_other_steps():
    changed = SEQUENCE.clone()
    changed[:, -1] += 1
    for name in default_registry.names("norm"):
        module = norm(name).eval()
        same = torch.equal(module(SEQUENCE)[:, :-1], module(changed)[:, :-1])
        assert same is (default_registry.entry("norm", name).traits.get("causal") is not False), name


@pytest.mark.parametrize("name", default_registry.names("norm"))
@pytest.mark.parametrize(("spatial", "x"), [(0, SEQUENCE), (2, MAP)])
def test_every_norm_takes_eps_and_keeps_the_shape(name, spatial, x):
    assert norm(name, spatial, eps=0.5)(x).shape == x.shape
    assert not torch.equal(norm(name, spatial, eps=0.5)(x), norm(name, spatial)(x))


@pytest.mark.parametrize(
    ("spec", "function"),
    [
        ("relu", F.relu),
        ("tanh", torch.tanh),
        ("gelu", F.gelu),
        ({"type": "gelu", "approximate": True}, lambda x: F.gelu(x, approximate="tanh")),
        ("silu", F.silu),
        ("mish", F.mish),
        ("elu", F.elu),
        ({"type": "elu", "alpha": 0.5}, lambda x: F.elu(x, 0.5)),
        ({"type": "leaky_relu", "slope": 0.2}, lambda x: F.leaky_relu(x, 0.2)),
        ("leaky_relu", F.leaky_relu),
        ("sigmoid", torch.sigmoid),
        ("softplus", F.softplus),
        ("softsign", F.softsign),
        ("identity", lambda x: x),
        ("hardswish", F.hardswish),
        ("selu", F.selu),
        ("relu2", lambda x: F.relu(x) ** 2),
    ],
    ids=lambda value: str(value) if isinstance(value, str | dict) else "",
)
def test_an_activation_is_the_function_of_its_name(spec, function):
    torch.testing.assert_close(part("activation", spec).build()(X - 2), function(X - 2))


@pytest.mark.parametrize("name", default_registry.names("activation"))
def test_no_activation_overwrites_its_input(name):
    x = X.clone()
    part("activation", name).build()(x)
    assert torch.equal(x, X)
