"""Convolutional encoders: a general stack, and the two that RL uses.

In: (B, C, H, W) float. Out: (B, F), or (B, C', H', W') where `features` is null and `flatten` false.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from policysmith.parts.activations import Activation
from policysmith.parts.norms import Norm
from policysmith.registry import PartSpec, part, register
from policysmith.types import Count, ImageShape, NonNegativeInt, Width

__all__ = ["Conv", "Impala", "Nature"]


def _after(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def _projection(features: int | None, flat: int, activation: PartSpec | str) -> list[nn.Module]:
    if features is None:
        return []
    return [nn.Linear(flat, features), part("activation", activation).build()]


@register("conv")
class Conv(nn.Sequential):
    """Convolution → norm? → activation for each entry of `channels`, then flatten and a Linear to `features`.

    `kernel_size`, `stride` and `padding` are one number, or one for each layer. (B, C, H, W) → (B, features).

    Args:
        channels: The channels of each layer.
        kernel_size: The side of each layer's kernel: one for all, or a list.
        stride: The step of each layer's kernel: one for all, or a list.
        padding: Zeros added at each border: one for all, or a list.
        activation: The nonlinearity behind each layer.
        norm: The normalisation behind each layer; null for none.
        flatten: Whether the map is flattened to a vector.
        features: The width of a linear layer behind the flattened map; null for none.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        channels: list[Count] = [32, 64, 64],  # noqa: B006 - read only
        kernel_size: Count | list[Count] = 3,
        stride: Count | list[Count] = 1,
        padding: NonNegativeInt | list[NonNegativeInt] = 0,
        activation: Activation = "relu",
        norm: Norm | None = None,
        flatten: bool = True,
        features: Width | None = None,
    ) -> None:
        layers: list[nn.Module] = []
        width, *spatial = image_shape
        kernels, strides, paddings = (
            _per_layer(name, value, len(channels))
            for name, value in (("kernel_size", kernel_size), ("stride", stride), ("padding", padding))
        )
        for size, kernel, step, pad in zip(channels, kernels, strides, paddings, strict=True):
            layers.append(nn.Conv2d(width, size, kernel, step, pad))
            if norm is not None:
                layers.append(part("norm", norm).build(features=size, spatial=2))
            layers.append(part("activation", activation).build())
            width, before = size, spatial
            spatial = [_after(s, kernel, step, pad) for s in spatial]
            if min(spatial) < 1:
                raise ValueError(
                    f"a map of {before[0]}×{before[1]} is too small for kernel_size={kernel}, stride={step}"
                )
        if features is not None and not flatten:
            raise ValueError("features needs flatten: true")
        if flatten:
            layers.append(nn.Flatten(-3))
        super().__init__(*layers, *_projection(features, width * math.prod(spatial), activation))


def _per_layer(name: str, value: int | list[int], count: int) -> list[int]:
    if isinstance(value, int):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries for {count} layers of channels")
    return value


@register("nature")
class Nature(Conv):
    """The DQN encoder (Mnih et al., Nature 2015): 32×8×8/4, 64×4×4/2, 64×3×3/1, ReLU, Linear.

    (B, C, H, W) with H, W ≥ 36 → (B, features).

    Args:
        activation: The nonlinearity behind each layer.
        features: The width of the output; null leaves the flattened map.
    """

    def __init__(self, image_shape: ImageShape, activation: Activation = "relu", features: Width | None = 512) -> None:
        super().__init__(image_shape, [32, 64, 64], [8, 4, 3], [4, 2, 1], 0, activation, features=features)


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))): the residual block of IMPALA, figure 3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) → (B, C, H, W)."""
        return x + self.conv2(self.conv1(x.relu()).relu())


@register("impala")
class Impala(nn.Sequential):
    """The large encoder of IMPALA (arXiv 1802.01561, figure 3): conv, pool and two residual blocks a stage.

    (B, C, H, W) → (B, features). `width` multiplies the channels.

    Args:
        channels: The channels of each of the stages.
        width: What all channels are multiplied by.
        features: The width of the output; null leaves the flattened map.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        channels: list[Count] = [16, 32, 32],  # noqa: B006 - read only
        width: Count = 1,
        features: Width | None = 256,
    ) -> None:
        layers: list[nn.Module] = []
        size, *spatial = image_shape
        for out in (c * width for c in channels):
            layers += [nn.Conv2d(size, out, 3, padding=1), nn.MaxPool2d(3, 2, 1), _Residual(out), _Residual(out)]
            size, spatial = out, [_after(s, 3, 2, 1) for s in spatial]
        layers += [nn.ReLU(), nn.Flatten(-3)]
        super().__init__(*layers, *_projection(features, size * math.prod(spatial), "relu"))
