"""The norm slot: what normalises the features of (*, F), or the channels of (B, C, H, W) when `spatial` is 2.

Each type is a function from the number of features to a module that normalises the right axis. `spatial` counts the
axes after the channels; with 0 the features come last, so vectors (B, F) and sequences (B, T, F) take the same module.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.registry import Infer, PartSpec, Slot, part, register
from policysmith.types import Count, Features, Positive

__all__ = ["Norm", "layer_norm", "sequence_norm"]

Norm = Annotated[PartSpec | str, Slot("norm")]
Spatial = Annotated[int, Infer("spatial")]

# Constructors that people hand over where a norm is asked for → the type that normalises the right axis of (B, T, F).
TORCH_NORMS: dict[type[nn.Module], str] = {
    nn.LayerNorm: "layer",
    nn.RMSNorm: "rms",
    nn.GroupNorm: "group",
    nn.InstanceNorm1d: "instance",
    nn.BatchNorm1d: "batch",
}


def sequence_norm(norm: PartSpec | str | type[nn.Module] | dict[str, object], features: int) -> nn.Module:
    """A norm of the tokens of (B, T, F): a type's name, mapping or spec, or one of torch's norm classes."""
    value = TORCH_NORMS.get(norm, norm) if isinstance(norm, type) else norm
    built: nn.Module = part("norm", value).build(features=features)
    return built


class _ChannelsLast(nn.Module):
    """Applies a norm of the last axis to the channels of (B, C, *spatial)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, *spatial) → the same, normalised over C at each position."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class _TokenGroupNorm(nn.GroupNorm):
    """Group normalisation of each token alone: torch's would take the time of (B, T, F) for channels."""

    def forward(self, x: Tensor) -> Tensor:
        """x (*, F) → the same, normalised over each group of features."""
        return super().forward(x.reshape(-1, x.shape[-1])).reshape(x.shape)


class _TokenBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of each feature over all tokens: torch's would take the time of (B, T, F) for channels."""

    def forward(self, x: Tensor) -> Tensor:
        """x (*, F) → the same, each feature normalised over rows and steps."""
        return super().forward(x.reshape(-1, x.shape[-1])).reshape(x.shape)


class _TimeInstanceNorm(nn.Module):
    """Instance normalisation of a sequence: each feature of each row over time."""

    def __init__(self, features: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """x (*, T, F) → the same, normalised over T."""
        if x.dim() < 3:
            raise ValueError(
                f"instance normalisation averages over time or space, and {tuple(x.shape)} has neither: use layer"
            )
        over_time = F.layer_norm(x.transpose(-1, -2), x.shape[-2:-1], eps=self.eps).transpose(-1, -2)
        return torch.addcmul(self.bias, over_time, self.weight)


@register("layer", slot="norm")
def layer_norm(features: Features, spatial: Spatial = 0, eps: Positive = 1e-5) -> nn.Module:
    """Layer normalisation over the features of one row (arXiv 1607.06450); over the channels of each pixel.

    Args:
        eps: What is added to the variance.
    """
    norm = nn.LayerNorm(features, eps)
    return _ChannelsLast(norm) if spatial else norm


@register("rms", slot="norm")
def rms_norm(features: Features, spatial: Spatial = 0, eps: Positive = 1e-6) -> nn.Module:
    """Root-mean-square normalisation (arXiv 1910.07467).

    Args:
        eps: What is added to the mean square.
    """
    norm = nn.RMSNorm(features, eps)
    return _ChannelsLast(norm) if spatial else norm


@register("group", slot="norm")
def group_norm(features: Features, spatial: Spatial = 0, groups: Count = 1, eps: Positive = 1e-5) -> nn.Module:
    """Group normalisation (arXiv 1803.08494) in `groups` groups of channels, of each token alone or over an image.

    Args:
        groups: Into how many groups the features are divided.
        eps: What is added to the variance.
    """
    if features % groups:
        raise ValueError(f"features={features} is not a multiple of groups={groups}")
    return (nn.GroupNorm if spatial else _TokenGroupNorm)(groups, features, eps)


@register("instance", slot="norm", causal=False)
def instance_norm(features: Features, spatial: Spatial = 0, eps: Positive = 1e-5) -> nn.Module:
    """Instance normalisation (arXiv 1607.08022): each feature of each row over its sequence, or over its image.

    Every step sees the whole sequence, so a causal or stateful model refuses it.

    Args:
        eps: What is added to the variance.
    """
    if not spatial:
        return _TimeInstanceNorm(features, eps)
    kinds = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
    return kinds[spatial](features, eps, affine=True)


@register("batch", slot="norm", batch_coupled=True)
def batch_norm(features: Features, spatial: Spatial = 0, eps: Positive = 1e-5, momentum: Positive = 0.1) -> nn.Module:
    """Batch normalisation (arXiv 1502.03167): each feature over rows, steps and places.

    Rows influence each other in training mode.

    Args:
        eps: What is added to the variance.
        momentum: The weight of the newest batch in the running statistics.
    """
    kinds = {0: _TokenBatchNorm, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
    return kinds[spatial](features, eps, momentum)
