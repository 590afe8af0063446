"""Features of a window by convolutions over time, for what reads it next. B batch, T time, F features, C channels.

In: (B, T, F). Out: (B, T, dim), every step with features of its neighbours, or of those before it where `causal`.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.config.options import options_of
from policysmith.parts.activations import Activation
from policysmith.parts.norms import Norm, sequence_norm
from policysmith.parts.transformer.causality import refuse_mixing
from policysmith.registry import Infer, PartSpec, Slot, part, register
from policysmith.types import Count, Dropout, EventShape, Features, Repeats, Width

__all__ = ["BasicExtractor", "Extractor", "InceptionExtractor", "ResnetExtractor", "sequence_extractor"]

Extractor = Annotated[PartSpec | str, Slot("encoder")]
Causal = Annotated[bool, Infer("causal")]


class TimeConv(nn.Conv1d):
    """Convolution over the time of (B, T, C) that keeps T; `causal` pads before the first step only."""

    def __init__(self, features: int, out_features: int, kernel: int, causal: bool) -> None:
        super().__init__(features, out_features, kernel)
        before = kernel - 1 if causal else (kernel - 1) // 2
        self.around = (before, kernel - 1 - before)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) → (B, T, C')."""
        return super().forward(F.pad(x.transpose(1, 2), self.around)).transpose(1, 2)


@register("basic", slot="encoder")
class BasicExtractor(nn.Sequential):
    """Convolution → activation → norm → dropout, `layers` times: to `hidden` features, the last to `dim`.

    Args:
        dim: The width of the output; that of the hidden features by default.
        hidden: The features between the layers.
        layers: How many layers or blocks there are.
        kernel: How many steps a convolution reads.
        activation: The nonlinearity.
        norm: The normalisation.
        dropout: The share of values that training sets to 0.
    """

    def __init__(
        self,
        features: Features,
        causal: Causal = False,
        dim: Width | None = None,
        hidden: Width = 128,
        layers: Repeats = 2,
        kernel: Count = 3,
        activation: Activation = "gelu",
        norm: Norm = "layer",
        dropout: Dropout = 0.0,
    ) -> None:
        _check_norm(norm, causal)
        modules: list[nn.Module] = []
        for index in range(layers):
            width = hidden if index < layers - 1 else dim or hidden
            modules += [
                TimeConv(features, width, kernel, causal),
                part("activation", activation).build(),
                sequence_norm(norm, width),
                nn.Dropout(dropout) if dropout else nn.Identity(),
            ]
            features = width
        super().__init__(*modules)


class _BlockExtractor(nn.Module):
    """Blocks of `hidden` features between two linear maps: what `resnet` and `inception` share."""

    def __init__(self, features: int, dim: int | None, hidden: int, activation: PartSpec | str) -> None:
        super().__init__()
        self.enter, self.activation = nn.Linear(features, hidden), part("activation", activation).build()
        self.blocks = nn.ModuleList()
        self.leave = nn.Linear(hidden, dim or hidden)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, F) → (B, T, dim)."""
        x = self.activation(self.enter(x))
        for block in self.blocks:
            x = block(x)
        return self.leave(x)


@register("resnet", slot="encoder")
class ResnetExtractor(_BlockExtractor):
    """`layers` residual blocks of two convolutions each, of `hidden` features, between two linear maps."""

    @options_of(BasicExtractor)
    def __init__(self, features: Features, causal: Causal = False, **options: Any) -> None:
        dim, layers = options.pop("dim"), options.pop("layers")
        _check_norm(options["norm"], causal)
        super().__init__(features, dim, options["hidden"], options["activation"])
        self.blocks.extend(_ResidualConv(causal=causal, **options) for _ in range(layers))


class _ResidualConv(nn.Module):
    """act(x + norm(conv(dropout(act(norm(conv(x))))))): the basic block of arXiv 1512.03385, over time."""

    def __init__(
        self, hidden: int, kernel: int, causal: bool, activation: PartSpec | str, norm: PartSpec | str, dropout: float
    ) -> None:
        super().__init__()
        self.conv1, self.norm1 = TimeConv(hidden, hidden, kernel, causal), sequence_norm(norm, hidden)
        self.conv2, self.norm2 = TimeConv(hidden, hidden, kernel, causal), sequence_norm(norm, hidden)
        self.activation = part("activation", activation).build()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) → (B, T, C)."""
        y = self.dropout(self.activation(self.norm1(self.conv1(x))))
        return self.activation(x + self.norm2(self.conv2(y)))


@register("inception", slot="encoder")
class InceptionExtractor(_BlockExtractor):
    """`layers` stages of parallel convolutions over 1, 3 and 5 steps, `hidden` features in all, between linear maps.

    The idea is that of arXiv 1409.4842.
    """

    @options_of(BasicExtractor, ("kernel",))
    def __init__(self, features: Features, causal: Causal = False, **options: Any) -> None:
        dim, layers, hidden = options.pop("dim"), options.pop("layers"), options["hidden"]
        _check_norm(options["norm"], causal)
        if hidden < len(_KERNELS):
            raise ValueError(f"hidden={hidden} is too small for {len(_KERNELS)} parallel convolutions")
        super().__init__(features, dim, hidden, options["activation"])
        self.blocks.extend(_Inception(causal=causal, **options) for _ in range(layers))


class _Inception(nn.Module):
    """Convolutions of several lengths side by side, each with its activation and norm.

    They share the channels evenly; the first also takes the remainder.
    """

    def __init__(
        self, hidden: int, causal: bool, activation: PartSpec | str, norm: PartSpec | str, dropout: float
    ) -> None:
        super().__init__()
        share = hidden // len(_KERNELS)
        widths = [hidden - share * (len(_KERNELS) - 1), *(share for _ in _KERNELS[1:])]
        self.convs = nn.ModuleList(
            TimeConv(hidden, out, kernel, causal) for out, kernel in zip(widths, _KERNELS, strict=True)
        )
        self.activation, self.norm = part("activation", activation).build(), sequence_norm(norm, hidden)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) → (B, T, C)."""
        side_by_side = torch.cat([conv(x) for conv in self.convs], -1)
        return self.dropout(self.norm(self.activation(side_by_side)))


_KERNELS = (1, 3, 5)


@register("sequence_extractor")
def sequence_extractor(event_shape: EventShape, extractor: Extractor = "basic", causal: bool = False) -> nn.Module:
    """Convolutional features of a window: (T, F) → (T, dim); `causal` lets no step see a later one.

    Args:
        extractor: The convolutions.
        causal: Whether no step sees a later one.
    """
    if len(event_shape) != 2:
        raise ValueError(f"a window (T, features) is expected, found {tuple(event_shape)}")
    built: nn.Module = part("encoder", extractor).build(features=event_shape[-1], causal=causal)
    return built


def _check_norm(norm: PartSpec | str, causal: bool) -> None:
    if causal:
        refuse_mixing({"norm": norm}, "which causal: true forbids")
