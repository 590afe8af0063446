"""What one pass on meta tensors tells: shapes, dtypes, counts and cost. B is the batch axis, never written in a spec.

In: a module, what it gave, and the pass's cost. Out: a `Measure`, all per row of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["PLAN_BATCH", "Budget", "Cost", "Measure", "TensorSpec", "check_state", "measured", "per_row"]

PLAN_BATCH = 13  # no event has this size by chance as easily as 1 or 2
# Of one part, built and run once without memory: about a second. A part that needs more repeats something without
# saying so, and would be planned for hours.
MAX_OPERATIONS = 20_000


@dataclass(frozen=True)
class TensorSpec:
    """One edge: the shape of one row's event, its dtype, and for category indices each variable's number of values."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    categories: tuple[int, ...] | None = None

    @property
    def features(self) -> int:
        """The number of numbers in one event."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Memory of one row."""
        return self.features * self.dtype.itemsize


@dataclass(frozen=True)
class Measure:
    """What one pass of a part on meta tensors tells.

    `state` is what it keeps between steps, by name; `aux` names the auxiliary losses and statistics it reports;
    `trainable` counts the parameters that ask for gradients, `objects` modules and tensors of weights.
    """

    outputs: tuple[TensorSpec, ...]
    parameters: int
    parameter_bytes: int
    buffers: int
    buffer_bytes: int
    flops: int
    activation_bytes: int
    state: tuple[tuple[str, TensorSpec], ...] = ()
    takes_aux: bool = False
    aux: tuple[str, ...] = ()
    trainable: int = 0
    objects: int = 0


def measured(
    module: nn.Module,
    results: Sequence[object],
    state: Mapping[str, Tensor],
    cost: Cost,
    takes_aux: bool,
    aux: Mapping[str, object],
) -> Measure:
    """The measure of a module that gave `results` for `PLAN_BATCH` rows that came with `state`.

    Its FLOPs and activations are those of all these rows: see `per_row`.
    """
    return Measure(
        outputs=_row_specs(results),
        **_counts(module),
        flops=cost.flops,
        activation_bytes=cost.bytes,
        state=tuple((name, TensorSpec(tuple(t.shape[1:]), t.dtype)) for name, t in state.items()),
        takes_aux=takes_aux,
        aux=tuple(aux),
    )


def per_row(measure: Measure) -> Measure:
    """The same with FLOPs and activations of one row, rounded last: what is multiplied must not be rounded before."""
    return replace(measure, flops=measure.flops // PLAN_BATCH, activation_bytes=measure.activation_bytes // PLAN_BATCH)


def _row_specs(results: Sequence[object]) -> tuple[TensorSpec, ...]:
    """What a part gives, as edges."""
    specs = []
    for tensor in results:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"it gives a {type(tensor).__name__} where a tensor, or a tuple of tensors, is expected")
        if tensor.dim() == 0 or tensor.shape[0] != PLAN_BATCH:
            raise ValueError(f"its output {tuple(tensor.shape)} lost the batch axis")
        specs.append(TensorSpec(tuple(tensor.shape[1:]), tensor.dtype))
    return tuple(specs)


def check_state(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """The state must keep its names, shapes and dtypes from step to step."""
    looks = [{name: (tuple(t.shape), t.dtype) for name, t in state.items()} for state in (before, after)]
    if looks[0] != looks[1]:
        raise ValueError(f"its state changes from {looks[0]} to {looks[1]} in one step")


def _counts(module: nn.Module) -> dict[str, int]:
    parameters = list(module.parameters())
    buffers = list(module.buffers())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "parameter_bytes": sum(p.numel() * p.itemsize for p in parameters),
        "buffers": sum(b.numel() for b in buffers),
        "buffer_bytes": sum(b.numel() * b.itemsize for b in buffers),
        "objects": sum(1 for _ in module.modules()) + len(parameters) + len(buffers),
    }


class Budget(TorchDispatchMode):
    """Ends what runs in it after `MAX_OPERATIONS` operations on tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.left = MAX_OPERATIONS

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        self.left -= 1
        if self.left < 0:
            raise ValueError(
                f"more than {MAX_OPERATIONS:,} operations are needed to plan it: an option of how often something is "
                "built takes the type policysmith.types.Repeats"
            )
        return func(*args, **(kwargs or {}))


class Cost(Budget):
    """Adds up FLOPs (2 × multiply-adds, torch's own formulas) and the bytes that operations write."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.bytes = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        if not func.is_view and not func._schema.is_mutable:
            outputs = out if isinstance(out, tuple | list) else (out,)
            self.bytes += sum(t.numel() * t.itemsize for t in outputs if isinstance(t, Tensor))
        return out
