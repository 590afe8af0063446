"""What `_type_` and `op:` name: the list of schema version 1, and beyond it the types and operations of a registry.

In: a name. Out: a registry's entry, whose schema follows from the signature.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from torch import nn

from policysmith.dialects.policy_constructor.building_blocks import (
    ConvBnAct,
    ConvResidualBlock,
    MLPBlock,
    Paddings,
    Size,
    Sizes,
)
from policysmith.registry import Entry, Registry, default_registry

__all__ = ["Registrar", "find_type", "type_names"]

COMPONENT, OPERATION = "component", "op"
LAYERS = (
    nn.Identity, nn.Linear, nn.LazyLinear, nn.Conv1d, nn.Conv2d, nn.LazyConv2d, nn.BatchNorm1d, nn.BatchNorm2d,
    nn.LayerNorm, nn.GroupNorm, nn.ReLU, nn.GELU, nn.SiLU, nn.Dropout, nn.Dropout2d, nn.Flatten,
)  # fmt: skip
BLOCKS = {"conv_bn_act": ConvBnAct, "mlp": MLPBlock, "residual_block": ConvResidualBlock}
ANNOTATIONS: dict[str, Any] = {
    "in_features": Size,
    "out_features": Size,
    "in_channels": Size,
    "out_channels": Size,
    "num_features": Size,
    "num_channels": Size,
    "num_groups": Size,
    "normalized_shape": Sizes,
    "kernel_size": Sizes,
    "stride": Sizes,
    "padding": Paddings | Literal["same", "valid"],
    "dilation": Sizes,
    "groups": Size,
    "bias": bool,
    "eps": float,
    "momentum": float | None,
    "affine": bool,
    "elementwise_affine": bool,
    "track_running_stats": bool,
    "padding_mode": Literal["zeros", "reflect", "replicate", "circular"],
    "approximate": Literal["none", "tanh"],
    "inplace": bool,
    "p": Annotated[float, Ge(0), Le(1)],
    "start_dim": int,
    "end_dim": int,
}

V1 = Registry()
for _layer in LAYERS:
    V1.register(f"nn.{_layer.__name__}", annotations=ANNOTATIONS, exclude=("device", "dtype", "args", "kwargs"))(_layer)
for _name, _block in BLOCKS.items():
    V1.register(_name)(_block)


class Registrar:
    """What `register(registry)` of an imported module is given: the original's way to add types and operations.

    Other arguments (signature policies, tags) are accepted and say nothing here.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def register_module(self, name: str, target: Any, **_: Any) -> None:
        """Add a type, whose options are checked by name alone; another object under a taken name is refused."""
        self._registry.register(name, names_only=True)(target)

    def register_op(self, name: str, target: Any, **_: Any) -> None:
        """Add an operation."""
        self._registry.register(name, slot=OPERATION)(target)


def find_type(name: object, registry: Registry) -> Entry | None:
    """The type of that name: one that `registry` has and the default registry has not, else version 1's, else any."""
    if not isinstance(name, str):
        return None
    own, common = _entry(registry, COMPONENT, name), _entry(default_registry, COMPONENT, name)
    is_users = own is not None and (own.traits.get("names_only") or common is None or common.target is not own.target)
    return own if is_users else _entry(V1, COMPONENT, name) or own


def type_names(registry: Registry) -> list[str]:
    """All that `_type_` may name."""
    return [*V1.names(COMPONENT), *(n for n in registry.names(COMPONENT) if n not in V1.names(COMPONENT))]


def _entry(registry: Registry, slot: str, name: str) -> Entry | None:
    return registry.entry(slot, name) if name in registry.names(slot, name.replace("[", "[[]")) else None
