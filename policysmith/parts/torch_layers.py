"""The allow-list of `torch.nn` layers, registered as `nn.Linear`, `nn.Conv2d` and so on.

Sizes that follow from the input are inferred; `device`, `dtype` and `inplace` are not options of a configuration.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from policysmith.registry import register
from policysmith.types import Channels, Count, Features, NonNegativeInt, NumEmbeddings, Share

__all__ = ["TORCH_LAYERS"]

Sizes = Count | list[Count]
Paddings = NonNegativeInt | list[NonNegativeInt]

_COMMON: dict[str, Any] = {
    "in_features": Features,
    "in_channels": Channels,
    "num_features": Channels,
    "num_channels": Channels,
    "normalized_shape": Features,
    "out_features": Count,
    "out_channels": Count,
    "kernel_size": Sizes,
    "stride": Sizes,
    "padding": Paddings,
    "output_padding": Paddings,
    "dilation": Sizes,
    "groups": Count,
    "bias": bool,
    "num_groups": Count,
    "num_embeddings": NumEmbeddings,
    "embedding_dim": Count,
    "output_size": Sizes,
    "eps": float,
    "momentum": float | None,
    "affine": bool,
    "elementwise_affine": bool,
    "p": Share,
    "dim": int,
    "start_dim": int,
    "end_dim": int,
    "unflattened_size": list[Count],
    "negative_slope": float,
    "num_parameters": Count,
    "init": float,
    "ceil_mode": bool,
    "count_include_pad": bool,
    "scale_factor": float,
    "mode": str,
}
_POOL = ("return_indices", "divisor_override")

TORCH_LAYERS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "nn.Identity": (nn.Identity, ("args", "kwargs")),
    "nn.Linear": (nn.Linear, ()),
    "nn.Conv1d": (nn.Conv1d, ("padding_mode",)),
    "nn.Conv2d": (nn.Conv2d, ("padding_mode",)),
    "nn.Conv3d": (nn.Conv3d, ("padding_mode",)),
    "nn.ConvTranspose2d": (nn.ConvTranspose2d, ("padding_mode",)),
    "nn.BatchNorm1d": (nn.BatchNorm1d, ("track_running_stats",)),
    "nn.BatchNorm2d": (nn.BatchNorm2d, ("track_running_stats",)),
    "nn.LayerNorm": (nn.LayerNorm, ()),
    "nn.RMSNorm": (nn.RMSNorm, ()),
    "nn.GroupNorm": (nn.GroupNorm, ()),
    "nn.InstanceNorm2d": (nn.InstanceNorm2d, ("track_running_stats",)),
    "nn.Embedding": (
        nn.Embedding,
        ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse", "_weight", "_freeze"),
    ),
    "nn.ReLU": (nn.ReLU, ()),
    "nn.GELU": (nn.GELU, ("approximate",)),
    "nn.SiLU": (nn.SiLU, ()),
    "nn.Mish": (nn.Mish, ()),
    "nn.Tanh": (nn.Tanh, ()),
    "nn.Sigmoid": (nn.Sigmoid, ()),
    "nn.ELU": (nn.ELU, ("alpha",)),
    "nn.LeakyReLU": (nn.LeakyReLU, ()),
    "nn.PReLU": (nn.PReLU, ("init",)),
    "nn.Softmax": (nn.Softmax, ()),
    "nn.SELU": (nn.SELU, ()),
    "nn.CELU": (nn.CELU, ("alpha",)),
    "nn.ReLU6": (nn.ReLU6, ()),
    "nn.Hardswish": (nn.Hardswish, ()),
    "nn.Softplus": (nn.Softplus, ("beta", "threshold")),
    "nn.Softsign": (nn.Softsign, ()),
    "nn.LogSigmoid": (nn.LogSigmoid, ()),
    "nn.Dropout": (nn.Dropout, ()),
    "nn.Dropout2d": (nn.Dropout2d, ()),
    "nn.AlphaDropout": (nn.AlphaDropout, ()),
    "nn.Flatten": (nn.Flatten, ()),
    "nn.Unflatten": (nn.Unflatten, ()),
    "nn.MaxPool1d": (nn.MaxPool1d, _POOL),
    "nn.MaxPool2d": (nn.MaxPool2d, _POOL),
    "nn.AvgPool1d": (nn.AvgPool1d, _POOL),
    "nn.AvgPool2d": (nn.AvgPool2d, _POOL),
    "nn.AdaptiveAvgPool1d": (nn.AdaptiveAvgPool1d, ()),
    "nn.AdaptiveAvgPool2d": (nn.AdaptiveAvgPool2d, ()),
    "nn.AdaptiveMaxPool2d": (nn.AdaptiveMaxPool2d, _POOL),
    "nn.PixelShuffle": (nn.PixelShuffle, ()),
}

_ALWAYS_HIDDEN = ("device", "dtype", "inplace")
_TRAITS: dict[str, dict[str, Any]] = {
    "nn.Embedding": {"indices": True},
    "nn.BatchNorm1d": {"batch_coupled": True},
    "nn.BatchNorm2d": {"batch_coupled": True},
}

for _name, (_layer, _hidden) in TORCH_LAYERS.items():
    register(
        _name,
        annotations={**_COMMON, "upscale_factor": Count},
        exclude=(*_ALWAYS_HIDDEN, *_hidden),
        **_TRAITS.get(_name, {}),
    )(_layer)
