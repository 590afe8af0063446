"""Legacy component classes and what they are here: the table of types.

In: a `Layer` and what the configuration can't know (`LayerSetting`). Out: `Built`, components of ours with the names of
their weights; or a sentence on why there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policysmith.dialects.metta.agent import Layer
from policysmith.dialects.metta.sources import Cut, axis_of, read_sources

__all__ = ["KINDS", "UNSUPPORTED", "Built", "LayerType", "LayerSetting", "activation_type"]

Components = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class LayerSetting:
    """What an agent's configuration can't know: the embedding's row of each action, and each normalizer's divisors.

    `hidden_size` is the core's; `taken` are the names in use.
    """

    rows: Sequence[int]
    hidden_size: int | None
    divisors: Mapping[str, Sequence[float]]
    taken: frozenset[str]


@dataclass(frozen=True)
class Built:
    """Components of ours, and for each prefix of our weights' names the legacy one (None: whatever there is one of)."""

    components: Components
    weights: Mapping[str, str | None] = field(default_factory=dict)


Make = Callable[[Layer, LayerSetting], Built]


@dataclass(frozen=True)
class LayerType:
    """A legacy class: how it is made, the arguments it passes on to torch, the options of its own, and how many inputs.

    `parametric` ones end in a ReLU unless `nonlinearity` says otherwise.
    """

    make: Make
    params: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    sources: tuple[int, int] = (1, 1)
    parametric: bool = False
    coupled: bool = False


def activation_type(layer: Layer) -> str | None:
    """The type of the activation behind a parametric layer; None for none."""
    written = layer.options.get("nonlinearity", "nn.ReLU")
    return None if written is None else f"nn.{str(written).rpartition('.')[2]}"


def layer_name(layer: Layer, setting: LayerSetting) -> str:
    """The name of a parametric layer itself where its own is that of its activation."""
    name = f"{layer.name}_layer"
    while name in setting.taken:
        name += "_"
    return name


def _inputs(layer: Layer, setting: LayerSetting) -> Cut:
    return read_sources(layer, setting.taken)


def _parametric(type_: str) -> Make:
    def make(layer: Layer, setting: LayerSetting) -> Built:
        activation = activation_type(layer)
        body = {"type": type_, "in_keys": _inputs(layer, setting).keys[0], **_given(layer), **_start(layer)}
        if activation is None:
            return Built({layer.name: body}, {layer.name: f"{layer.name}._net"})
        inner = layer_name(layer, setting)
        components = {inner: body, layer.name: {"type": activation, "in_keys": inner}}
        return Built(components, {inner: f"{layer.name}._net.0", layer.name: f"{layer.name}._net.1"})

    return make


def _plain(type_: str, net: str | None = "_net") -> Make:
    """One component of ours; its weights lie under `net` (None: under a name that is not known)."""

    def make(layer: Layer, setting: LayerSetting) -> Built:
        cut = _inputs(layer, setting)
        body = {"type": type_, "in_keys": cut.keys[0] if len(cut.keys) == 1 else cut.keys, **_given(layer)}
        return Built({**cut.slices, layer.name: body}, {layer.name: net and f"{layer.name}.{net}"})

    return make


def _given(layer: Layer) -> dict[str, Any]:
    """The arguments as written; `inplace` says nothing here."""
    return {name: value for name, value in layer.params.items() if value is not None and name != "inplace"}


def _start(layer: Layer) -> dict[str, Any]:
    """How its weights started, for the day that they start anew."""
    kind = str(layer.options.get("initialization") or "orthogonal").lower()
    gain = 2**0.5 if layer.options.get("nonlinearity") == "nn.Tanh" else 1.0
    starts: dict[str, dict[str, Any]] = {
        "orthogonal": {"type": "orthogonal", "gain": gain},
        "xavier": {"type": "xavier_uniform"},
        "normal": {"type": "kaiming_normal"},
        "max_0_01": {"type": "normal", "std": 0.01 / 3**0.5},  # as wide as the uniform numbers there
    }
    return {"init": starts[kind]} if kind in starts else {}


def _lstm(layer: Layer, setting: LayerSetting) -> Built:
    sizes = {**layer.params, **{k: v for k, v in layer.options.items() if k in ("hidden_size", "num_layers")}}
    hidden = layer.options.get("output_size") or sizes.pop("hidden_size", None) or setting.hidden_size
    sizes.pop("hidden_size", None)
    sizes = {name: value for name, value in sizes.items() if name != "input_size"}
    if hidden is None:
        raise ValueError("its size is told neither by output_size nor by hidden_size")
    body = {"type": "lstm", "in_keys": _inputs(layer, setting).keys[0], "hidden_size": hidden, **sizes}
    net = None if layer.kind.endswith("Module") else f"{layer.name}._net"
    return Built({layer.name: {**body, "forget_bias": 1.0}}, {layer.name: net})


def _observation(layer: Layer, setting: LayerSetting) -> Built:
    return Built({layer.name: {"type": "channels_first", "in_keys": "observation"}})


def _normalizer(layer: Layer, setting: LayerSetting) -> Built:
    if layer.name not in setting.divisors:
        raise ValueError(
            "what features are divided by is not in the configuration: import the weights, which hold it, or give "
            "the numbers with --feature-max (feature_max=)"
        )
    by = [float(value) for value in setting.divisors[layer.name]]
    return Built({layer.name: {"type": "divide", "in_keys": _inputs(layer, setting).keys[0], "by": by}})


def _merge(operation: str) -> Make:
    def make(layer: Layer, setting: LayerSetting) -> Built:
        kind = layer.options.get("merge_type", "concat") if operation == "any" else operation
        if not isinstance(kind, str) or kind not in MERGES:
            raise ValueError(f"unknown merge_type {kind!r}; there are: {', '.join(MERGES)}")
        cut = _inputs(layer, setting)
        if kind == "subtract" and len(cut.keys) != 2:
            raise ValueError(f"subtracts one source from another, and has {len(cut.keys)}")
        body: dict[str, Any] = {"type": MERGES[kind], "in_keys": cut.keys}
        if kind == "concat":
            dims = {source.dim or 1 for source in layer.sources}
            if len(dims) > 1:
                raise ValueError(f"joins its sources along one dim, and they say {', '.join(map(str, sorted(dims)))}")
            body["axis"] = axis_of(dims.pop())
        return Built({**cut.slices, layer.name: body})

    return make


MERGES = {"concat": "join", "add": "sum", "subtract": "difference", "mean": "mean"}


def _expand(layer: Layer, setting: LayerSetting) -> Built:
    axis, size = layer.options.get("expand_dim"), layer.options.get("expand_value")
    if layer.options.get("dims_source") is not None:
        raise ValueError("takes its size from dims_source: write it as expand_value")
    if type(axis) is not int or axis < 1 or type(size) is not int:
        raise ValueError(f"needs expand_dim, 1 or more (0 is the batch), and expand_value; found {axis!r} and {size!r}")
    key = _inputs(layer, setting).keys[0]
    return Built({layer.name: {"type": "expand", "in_keys": key, "size": size, "axis": axis - 1}})


def _reshape(layer: Layer, setting: LayerSetting) -> Built:
    popped, squeezed = layer.options.get("popped_dim"), layer.options.get("squeezed_dim")
    if type(popped) is not int or type(squeezed) is not int:
        raise ValueError(f"needs popped_dim and squeezed_dim; found {popped!r} and {squeezed!r}")
    if 0 in (popped, squeezed):
        raise ValueError(
            "folds the batch into another dimension, and rows of a batch stay apart here; our parts take any leading "
            "dimensions, so leave it and the BatchReshapeLayer behind it out"
        )
    if not 0 < squeezed < popped:
        raise ValueError(f"folds dim {popped} into a later one, which failed there: popped_dim must be the later one")
    body = {"type": "fold", "in_keys": _inputs(layer, setting).keys[0], "axis": popped - 1, "into": squeezed - 1}
    return Built({layer.name: body})


def _embedding(layer: Layer, setting: LayerSetting) -> Built:
    sizes = {"num_embeddings": layer.params.get("num_embeddings"), "dim": layer.params.get("embedding_dim")}
    stated = {name: value for name, value in sizes.items() if value is not None}
    body = {"type": "action_embedding", "in_keys": "observation", **stated, "rows": list(setting.rows)}
    start = {"init": {"type": "normal", "std": 0.03}}  # the largest was scaled to 0.1
    return Built({layer.name: {**body, **start}}, {f"{layer.name}.table": f"{layer.name}._net"})


def _actor(forms: int | None) -> Make:
    def make(layer: Layer, setting: LayerSetting) -> Built:
        sizes = {"forms": layer.options.get("bilinear_output_dim", forms)} if forms else {}
        if forms and "mlp_hidden_dim" in layer.options:
            sizes["hidden"] = layer.options["mlp_hidden_dim"]
        body = {"type": "bilinear_action_head", "in_keys": _inputs(layer, setting).keys, **sizes}
        return Built({layer.name: body}, {layer.name: layer.name, f"{layer.name}.mlp": f"{layer.name}._MLP"})

    return make


def _residual(layer: Layer, setting: LayerSetting) -> Built:
    body = {"type": "swish_residual_mlp", "in_keys": _inputs(layer, setting).keys[0]}
    depth = layer.options.get("depth")
    if type(depth) is not int or depth < 4 or depth % 4:
        raise ValueError(f"needs a depth, 4 or a multiple of it; found {depth!r}")
    return Built({layer.name: {**body, "blocks": depth // 4}}, {layer.name: f"{layer.name}.residual_layers"})


_LINEAR = ("out_features", "bias")
_CONV = ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias")
_NORM = ("eps", "elementwise_affine", "bias")
_BATCH_NORM = ("eps", "momentum", "affine")
_RATE = ("p", "inplace")
_MANY = (1, 99)
_LSTM = ("num_layers", "dropout", "bias")

KINDS: Mapping[str, LayerType] = {
    "Linear": LayerType(_parametric("nn.Linear"), _LINEAR, parametric=True),
    "Conv2d": LayerType(_parametric("nn.Conv2d"), _CONV, parametric=True),
    "Bilinear": LayerType(_plain("bilinear"), _LINEAR, sources=(2, 2)),
    "LayerNorm": LayerType(_plain("nn.LayerNorm"), _NORM),
    "ReLU": LayerType(_plain("nn.ReLU"), ("inplace",)),
    "Identity": LayerType(_plain("nn.Identity")),
    "Flatten": LayerType(_plain("flatten")),
    "Dropout": LayerType(_plain("nn.Dropout"), _RATE),
    "Dropout2d": LayerType(_plain("nn.Dropout2d"), _RATE),
    "AlphaDropout": LayerType(_plain("nn.AlphaDropout"), _RATE),
    "BatchNorm1d": LayerType(_plain("nn.BatchNorm1d"), _BATCH_NORM, coupled=True),
    "BatchNorm2d": LayerType(_plain("nn.BatchNorm2d"), _BATCH_NORM, coupled=True),
    "ResNetMLP": LayerType(_residual, options=("depth",)),
    "LSTM": LayerType(_lstm, ("hidden_size", *_LSTM), ("output_size", "hidden_size")),
    "ObsShaper": LayerType(_observation, sources=(0, 0)),
    "ObservationNormalizer": LayerType(_normalizer),
    "ConcatMergeLayer": LayerType(_merge("concat"), sources=_MANY),
    "AddMergeLayer": LayerType(_merge("add"), sources=_MANY),
    "SubtractMergeLayer": LayerType(_merge("subtract"), sources=_MANY),
    "MeanMergeLayer": LayerType(_merge("mean"), sources=_MANY),
    "ExpandLayer": LayerType(_expand, options=("expand_dim", "expand_value", "dims_source", "source_dim")),
    "ReshapeLayer": LayerType(_reshape, options=("popped_dim", "squeezed_dim")),
    "CenterPixelLayer": LayerType(_plain("centre_pixel")),
    "ActionEmbedding": LayerType(_embedding, ("num_embeddings", "embedding_dim"), ("initialization",), (0, 0)),
    "MettaActorBig": LayerType(_actor(32), options=("bilinear_output_dim", "mlp_hidden_dim"), sources=(2, 2)),
    "MettaActorSingleHead": LayerType(_actor(None), sources=(2, 2)),
    # The proposal's classes: plain computation, no activation of their own, options beside `_target_`.
    "LinearModule": LayerType(_plain("nn.Linear", None), ("in_features", *_LINEAR)),
    "Conv2dModule": LayerType(_plain("nn.Conv2d", None), ("in_channels", *_CONV)),
    "LayerNormModule": LayerType(_plain("nn.LayerNorm", None), ("normalized_shape", *_NORM)),
    "ReLUModule": LayerType(_plain("nn.ReLU")),
    "FlattenModule": LayerType(_plain("flatten")),
    "DropoutModule": LayerType(_plain("nn.Dropout"), _RATE),
    "LSTMModule": LayerType(_lstm, ("input_size", "hidden_size", *_LSTM)),
    "MergeModule": LayerType(_merge("any"), options=("merge_type",), sources=_MANY),
    "ObsModule": LayerType(_observation, sources=(0, 0)),
    "ActorModule": LayerType(_actor(32), options=("bilinear_output_dim", "mlp_hidden_dim"), sources=(2, 2)),
}

_POOL = "the original gave its channels as kernel_size, and no such layer ever ran: write the pooling that is meant"
_TOKENS = "its tokens changed their meaning from version to version, and the configuration does not tell which it was"
UNSUPPORTED: Mapping[str, str] = {
    **dict.fromkeys(
        ("MaxPool1d", "MaxPool2d", "AvgPool1d", "AvgPool2d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d",
         "AdaptiveMaxPool1d", "AdaptiveMaxPool2d"),
        _POOL,
    ),
    **dict.fromkeys(
        ("ObsTokenToBoxShaper", "ObsTokenPadStrip", "ObsAttrValNorm", "ObsAttrCoordEmbed", "ObsAttrEmbedFourier",
         "ObsAttrCoordValueEmbed", "ObsLatentAttn", "ObsSelfAttn"),
        _TOKENS,
    ),
    "FeatureListNormalizer": "it was marked as not working: our type 'normalizer' keeps a running mean and deviation",
    "Embedding": "it reads whole numbers, which no component gives; ActionEmbedding is imported",
    "BatchReshapeLayer": "it takes rows of the batch apart again: leave it out with the ReshapeLayer before it",
}  # fmt: skip
