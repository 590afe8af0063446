"""The norm slot: what normalises the features of (*, F), or the channels of (B, C, H, W) when `spatial` is 2.

Each type is a function from the number of features to a module that normalises the right axis.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from torch import Tensor, nn

from policysmith.registry import Infer, PartSpec, Slot, register

__all__ = ["Norm", "layer_norm"]

Norm = Annotated[PartSpec | str, Slot("norm")]
Features = Annotated[int, Infer("features")]
Spatial = Annotated[int, Infer("spatial")]
Epsilon = Annotated[float, Gt(0)]


class _ChannelsLast(nn.Module):
    """Applies a norm of the last axis to the channels of (B, C, *spatial)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, *spatial) → the same, normalised over C at each position."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


@register("layer", slot="norm")
def layer_norm(features: Features, spatial: Spatial = 0, eps: Epsilon = 1e-5) -> nn.Module:
    """Layer normalisation over the features of one row (arXiv 1607.06450); over the channels of each pixel."""
    norm = nn.LayerNorm(features, eps)
    return _ChannelsLast(norm) if spatial else norm


@register("rms", slot="norm")
def rms_norm(features: Features, spatial: Spatial = 0, eps: Epsilon = 1e-6) -> nn.Module:
    """Root-mean-square normalisation (arXiv 1910.07467)."""
    norm = nn.RMSNorm(features, eps)
    return _ChannelsLast(norm) if spatial else norm


@register("group", slot="norm")
def group_norm(
    features: Features, spatial: Spatial = 0, groups: Annotated[int, Gt(0)] = 1, eps: Epsilon = 1e-5
) -> nn.Module:
    """Group normalisation (arXiv 1803.08494): (B, C, *) in `groups` groups of channels."""
    if features % groups:
        raise ValueError(f"features={features} is not a multiple of groups={groups}")
    return nn.GroupNorm(groups, features, eps)


@register("batch", slot="norm", batch_coupled=True)
def batch_norm(
    features: Features, spatial: Spatial = 0, eps: Epsilon = 1e-5, momentum: Annotated[float, Gt(0)] = 0.1
) -> nn.Module:
    """Batch normalisation (arXiv 1502.03167); rows influence each other in training mode."""
    kinds = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
    return kinds[spatial](features, eps, momentum)
