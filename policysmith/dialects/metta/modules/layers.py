"""Component modules: one registered part each, under keys of its own, to be used and tested by itself.

In: sizes, options of the part, keys. Out: a component over any leading batch dimensions, of a mapping or a TensorDict.
The part is looked up in the registry; `policysmith.modules` imports the parts as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from policysmith.graph.component import Key, TensorComponent
from policysmith.graph.shape_errors import Event, shape_error
from policysmith.ops.init import initialize, with_role
from policysmith.ops.leaf_function import leaf_function
from policysmith.registry import part

__all__ = [
    "ActivationModule",
    "ActorModule",
    "Conv2dModule",
    "DropoutModule",
    "EmbeddingModule",
    "FlattenModule",
    "LayerNormModule",
    "LinearModule",
    "ObsModule",
    "PartModule",
    "ReLUModule",
    "build_part",
    "Keys",
]

Keys = Sequence[Key] | None


def build_part(type: str, slot: str = "component", context: dict[str, Any] | None = None, **options: Any) -> Any:
    """A registered part, initialised by role; `context` are its inferred arguments. Raises `ConfigError`."""
    module = part(slot, {"type": type, **options}).build(**(context or {}))
    initialize(module)
    return module


class PartModule(TensorComponent):
    """A registered part as a component; `state_dict` is the part's own, as of a component of that type in a file.

    Keys come from the constructor, else from the class. `part_type` names the part, `event` is the shape of one row of
    the input where it is known (None for a free size): a row of another shape raises `ShapeError` with both.
    """

    part_type: ClassVar[str]
    event: Event | None = None
    in_keys, out_keys = ["input"], ["output"]

    def __init__(self, module: nn.Module, in_keys: Keys = None, out_keys: Keys = None, event: Event | None = None):
        super().__init__(module, in_keys, out_keys)
        if event is not None:
            self.event = event

    def shape_error(self, tensors: Sequence[Tensor]) -> str | None:
        """Which input has another shape than it must, or None."""
        return shape_error(self, tensors, self.event)


class LinearModule(PartModule):
    """An affine layer, (*, in_features) → (*, out_features): `nn.Linear`."""

    part_type = "nn.Linear"

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, in_keys: Keys = None, out_keys: Keys = None
    ) -> None:
        module = build_part(self.part_type, context={"features": in_features}, out_features=out_features, bias=bias)
        super().__init__(module, in_keys, out_keys, (in_features,))


class ActorModule(PartModule):
    """States (*, state_dim) → actions (*, action_dim): an `mlp` whose last layer starts near zero.

    It is deterministic and unbounded: the action itself where actions are numbers, scores where they are choices.
    `SafeModule(actor, action_bounds=(-1, 1))` bounds it. A policy that samples has an `action_head` instead.
    """

    part_type = "mlp"
    in_keys, out_keys = ["state"], ["action"]

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (64, 64),
        activation: Any = "tanh",
        in_keys: Keys = None,
        out_keys: Keys = None,
    ) -> None:
        options = {"hidden": list(hidden), "activation": activation, "out_features": action_dim}
        module = build_part(self.part_type, context={"flat_features": state_dim}, **options)
        initialize(with_role(module[-1], "policy_out"))
        super().__init__(module, in_keys, out_keys, (state_dim,))


class ObsModule(PartModule):
    """Pixels as the network reads them: `encode_image`, `observation` (*, H, W, C) → `obs` (*, C, H, W) / scale."""

    part_type = "encode_image"
    in_keys, out_keys = ["observation"], ["obs"]

    def __init__(self, layout: str = "hwc", scale: float = 255.0, in_keys: Keys = None, out_keys: Keys = None) -> None:
        event = (None,) * len(layout)
        super().__init__(build_part(self.part_type, layout=layout, scale=float(scale)), in_keys, out_keys, event)


class Conv2dModule(PartModule):
    """A convolution of planes, (*, in_channels, H, W) → (*, out_channels, H', W'): `nn.Conv2d`, which see."""

    part_type = "nn.Conv2d"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | list[int],
        stride: int | list[int] = 1,
        padding: int | list[int] = 0,
        in_keys: Keys = None,
        out_keys: Keys = None,
        **options: Any,
    ) -> None:
        module = build_part(
            self.part_type,
            context={"channels": in_channels},
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            **options,
        )
        super().__init__(module, in_keys, out_keys, (in_channels, None, None))

    def compute(self, *tensors: Tensor, **aux: Any) -> Tensor:
        """The layer knows one batch dimension: others are folded into it, and unfolded."""
        (x,) = tensors
        return _unfolded(self.module(_folded(x)), x)


class FlattenModule(PartModule):
    """Every row as one vector, (*, *event_shape) → (*, F): `flatten`."""

    part_type = "flatten"

    def __init__(self, event_shape: Sequence[int], in_keys: Keys = None, out_keys: Keys = None) -> None:
        event = tuple(event_shape)
        super().__init__(build_part(self.part_type, context={"event_shape": event}), in_keys, out_keys, event)


class LayerNormModule(PartModule):
    """Layer normalisation over features, (*, features) → the same: `nn.LayerNorm` (arXiv 1607.06450)."""

    part_type = "nn.LayerNorm"

    def __init__(self, features: int, eps: float = 1e-5, in_keys: Keys = None, out_keys: Keys = None) -> None:
        module = build_part(self.part_type, context={"features": features}, eps=float(eps))
        super().__init__(module, in_keys, out_keys, (features,))


class DropoutModule(PartModule):
    """Zeroes entries at random in training mode, (*) → the same: `nn.Dropout`."""

    part_type = "nn.Dropout"

    def __init__(self, p: float = 0.5, in_keys: Keys = None, out_keys: Keys = None) -> None:
        super().__init__(build_part(self.part_type, p=float(p)), in_keys, out_keys)


class EmbeddingModule(PartModule):
    """Vectors for indices, (*) int64 → (*, embedding_dim): `nn.Embedding`."""

    part_type = "nn.Embedding"

    def __init__(self, num_embeddings: int, embedding_dim: int, in_keys: Keys = None, out_keys: Keys = None) -> None:
        context = {"num_embeddings": num_embeddings}
        super().__init__(build_part(self.part_type, context=context, embedding_dim=embedding_dim), in_keys, out_keys)


class ActivationModule(PartModule):
    """An element-wise function by its registered name or mapping, (*) → the same."""

    def __init__(self, activation: Any = "relu", in_keys: Keys = None, out_keys: Keys = None) -> None:
        described = {"type": activation} if isinstance(activation, str) else dict(activation)
        super().__init__(build_part(slot="activation", **described), in_keys, out_keys)


class ReLUModule(ActivationModule):
    """max(x, 0), (*) → the same: `nn.ReLU`."""

    part_type = "nn.ReLU"

    def __init__(self, in_keys: Keys = None, out_keys: Keys = None) -> None:
        super().__init__("relu", in_keys, out_keys)


@leaf_function
def _folded(x: Tensor) -> Tensor:
    """(*, C, H, W) → (N, C, H, W). A tracer keeps this as one call."""
    return x if x.dim() == 4 else x.flatten(0, -4) if x.dim() > 4 else x.unsqueeze(0)


@leaf_function
def _unfolded(y: Tensor, x: Tensor) -> Tensor:
    """(N, …) with the leading dimensions of x (*, C, H, W). A tracer keeps this as one call."""
    return y if x.dim() == 4 else y.reshape(*x.shape[:-3], *y.shape[1:])
