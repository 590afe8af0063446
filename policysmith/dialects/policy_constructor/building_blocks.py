"""The three blocks of schema version 1, with the names of its weights: `conv_bn_act`, `mlp`, `residual_block`.

In: (B, C, H, W), for `mlp` (*, F). Out: the same kind. Sizes given as null follow from the first input.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt, MinLen
from pydantic import PlainValidator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

__all__ = ["MLPBlock", "ConvBnAct", "Layer", "ConvResidualBlock", "Paddings", "Size", "Sizes"]

Size = Annotated[int, Gt(0)]
Sizes = Size | list[Size]
Paddings = Annotated[int, Ge(0)] | list[Annotated[int, Ge(0)]]


def _layer(value: Any) -> Any:
    if value is not None and not isinstance(value, nn.Module):
        raise PydanticCustomError("policysmith", f"expected a module such as {{_type_: nn.ReLU}}, found {value!r}")
    return value


Layer = Annotated[nn.Module | None, PlainValidator(_layer)]


class ConvBnAct(nn.Module):
    """Convolution, norm (BatchNorm2d by default), activation (ReLU by default).

    The convolution has no bias unless `bias` asks for one: the norm would take it away again.
    """

    def __init__(
        self,
        *,
        in_channels: Size | None,
        out_channels: Size,
        kernel_size: Sizes = 3,
        stride: Sizes = 1,
        padding: Paddings = 0,
        dilation: Sizes = 1,
        groups: Size = 1,
        bias: bool | None = None,
        norm: Layer = None,
        act: Layer = None,
    ) -> None:
        super().__init__()
        shape = (kernel_size, stride, padding, dilation, groups, bool(bias))
        if in_channels is None:
            self.conv: nn.Module = nn.LazyConv2d(out_channels, *map(_pair, shape))
        else:
            self.conv = nn.Conv2d(in_channels, out_channels, *map(_pair, shape))
        self.norm = nn.BatchNorm2d(out_channels) if norm is None else norm
        self.act = nn.ReLU() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) → (B, out_channels, H', W')."""
        return self.act(self.norm(self.conv(x)))


class MLPBlock(nn.Module):
    """Linear layers of the widths `dims`, the first of which may be null; an activation of its own after each but one.

    After the last comes `final_activation`, if any. (*, dims[0]) → (*, dims[-1]).
    """

    def __init__(
        self,
        *,
        dims: Annotated[list[Size | None], MinLen(2)],
        activation: Layer = None,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        bias: bool = True,
        final_activation: Layer = None,
    ) -> None:
        super().__init__()
        if None in dims[1:]:
            raise ValueError("dims: only the first may be null, found null at " + str(dims.index(None, 1)))
        layers: list[nn.Module] = []
        for index, (width, size) in enumerate(pairwise(dims)):
            assert size is not None
            layers.append(nn.LazyLinear(size, bias) if width is None else nn.Linear(width, size, bias))
            if index < len(dims) - 2:
                layers.append(nn.ReLU() if activation is None else copy.deepcopy(activation))
                layers += [nn.Dropout(dropout)] if dropout else []
        layers += [] if final_activation is None else [final_activation]
        self.net = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, dims[0]) → (*, dims[-1])."""
        return self.net(x)


class ConvResidualBlock(nn.Module):
    """Two convolutions of 3×3 around which x passes, through one of 1×1 where its shape changes (arXiv 1512.03385)."""

    def __init__(
        self, *, in_channels: Size, out_channels: Size | None = None, stride: Size = 1, act: Layer = None
    ) -> None:
        super().__init__()
        width = out_channels or in_channels
        self.main1 = ConvBnAct(in_channels=in_channels, out_channels=width, stride=stride, padding=1)
        self.main2 = ConvBnAct(in_channels=width, out_channels=width, padding=1, act=nn.Identity())
        self.skip: nn.Module = nn.Identity()
        if width != in_channels or stride != 1:
            self.skip = ConvBnAct(
                in_channels=in_channels, out_channels=width, kernel_size=1, stride=stride, act=nn.Identity()
            )
        self.act = nn.ReLU() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) → (B, out_channels, H', W')."""
        return self.act(self.main2(self.main1(x)) + self.skip(x))


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
