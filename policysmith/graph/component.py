"""Components: pure computation with named inputs and outputs.

In: a plain mapping or a TensorDict. Out: the same one, with the outputs written. Inside a plan only tensors flow.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import cache
from typing import Any, TypeAlias

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from policysmith.errors import ShapeError, WiringError
from policysmith.graph.call import Call
from policysmith.graph.module_view import ViewMixin, share_state
from policysmith.ops.join_features import join_features

__all__ = [
    "AUX",
    "Component",
    "Key",
    "Sink",
    "TensorComponent",
    "TensorMapping",
    "as_key",
    "read_key",
    "takes_aux",
    "write_key",
]

AUX = "aux"
"""The key of a mapping's sink of auxiliary losses and statistics: a dict that modules add to."""

Key = str | tuple[str, ...]
Sink = dict[str, Tensor]
"""Auxiliary losses and statistics by name."""
TensorMapping: TypeAlias = MutableMapping[Any, Any] | TensorDictBase
"""Tensors by key, those of nested keys in mappings by name; and in a plain mapping a sink under `AUX`."""


def as_key(name: Key) -> Key:
    """The mapping key of an edge's name: `observation.image` lies at `("observation", "image")`."""
    return tuple(name.split(".")) if isinstance(name, str) and "." in name else name


def read_key(mapping: TensorMapping, key: Key) -> Tensor:
    """The tensor at a (nested) key of a plain mapping or a TensorDict; KeyError names what is there."""
    found: Any = mapping
    try:
        if isinstance(key, str) or isinstance(mapping, TensorDictBase):
            return mapping[key]
        for name in key:
            found = found[name]
        return found
    except (KeyError, TypeError, IndexError):
        there = ", ".join(map(str, found.keys())) if hasattr(found, "keys") else type(found).__name__
        raise KeyError(f"missing input key {key!r}; there are: {there}") from None


def write_key(mapping: TensorMapping, key: Key, value: Tensor) -> None:
    """Write a tensor at a (nested) key."""
    if isinstance(key, str) or isinstance(mapping, TensorDictBase):
        mapping[key] = value
        return
    for name in key[:-1]:
        mapping = mapping.setdefault(name, {})
    mapping[key[-1]] = value


class Component(TensorDictModuleBase):
    """A module that reads `in_keys` and writes `out_keys`; subclasses write only `compute`.

    Keys come from the constructor or from class attributes. `compute(*tensors)` is pure: it returns one tensor, or a
    tuple in the order of `out_keys`. A subclass may override `forward(mapping)` itself; it is then opaque to the plan.

    `reports` names what its `forward` adds to a mapping's sink of auxiliary losses. `transparent` marks a view whose
    forward, as far as tensors go, is `enter(*inputs)`, what stands behind it, and `leave(result)` → result, where there
    are such modules; a program calls these instead, and `report(sink)` for the losses. `learner` is the module whose
    `update(x)` takes statistics from data between rollouts, where there is one.
    """

    reports: tuple[str, ...] = ()
    transparent: bool = False
    enter: Any = None
    leave: Any = None
    learner: Any = None

    def __init__(self, in_keys: Sequence[Key] | None = None, out_keys: Sequence[Key] | None = None) -> None:
        super().__init__()
        if in_keys is not None:
            self.in_keys = [as_key(key) for key in in_keys]
        if out_keys is not None:
            self.out_keys = [as_key(key) for key in out_keys]

    def compute(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Tensors of `in_keys` in order → the tensor, or tuple of tensors, of `out_keys`."""
        raise NotImplementedError(f"{type(self).__name__} defines neither compute nor forward")

    def forward(self, mapping: TensorMapping) -> TensorMapping:
        """Read, compute, write; returns the mapping it was given. Any leading batch dimensions pass."""
        if not isinstance(mapping, Mapping | TensorDictBase | MutableMapping):
            raise TypeError(f"{type(self).__name__} takes a mapping or a TensorDict, found {type(mapping).__name__}")
        tensors, out_keys = [read_key(mapping, key) for key in self.in_keys], self.out_keys
        for key, value in zip(out_keys, self.results(tensors, self.sink(mapping), out_keys), strict=True):
            write_key(mapping, key, value)
        return mapping

    def results(self, tensors: Sequence[Tensor], sink: Mapping[str, Sink], out_keys: Sequence[Key]) -> Sequence[Tensor]:
        """What `compute` gives, one tensor for each of `out_keys`; `ShapeError` where `shape_error` knows why not."""
        try:
            result = self.compute(*tensors, **sink)
        except (RuntimeError, ValueError, IndexError) as error:
            if problem := self.shape_error(tensors):
                raise ShapeError(problem) from error
            raise
        results = (result,) if isinstance(result, Tensor) else result
        if len(results) != len(out_keys):
            raise WiringError(f"{type(self).__name__} gave {len(results)} outputs for out_keys {list(out_keys)}")
        return results

    def shape_error(self, tensors: Sequence[Tensor]) -> str | None:
        """What is wrong with the inputs, where `compute` failed: a sentence, or None where that is not known."""
        return None

    def sink(self, mapping: TensorMapping) -> dict[str, Sink]:
        """What `compute` gets besides tensors: nothing, for most."""
        return {}

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        """What `batch` rows remember before their first step, by name: nothing, for most."""
        return {}


class TensorComponent(ViewMixin, Component):
    """Any module of tensors as a component; `state_dict` is the module's own, with no prefix added.

    `arguments` names the module's forward argument for each in_key (positional where None). `event_ndims`, where
    given, has each input flattened over that many trailing dimensions and all joined into one (*, F) tensor. `call`,
    where given, says how the module is called altogether, constants included.
    """

    def __init__(
        self,
        module: nn.Module,
        in_keys: Sequence[Key] | None = None,
        out_keys: Sequence[Key] | None = None,
        arguments: Sequence[str] | None = None,
        event_ndims: Sequence[int] | None = None,
        call: Call | None = None,
    ) -> None:
        super().__init__(in_keys, out_keys)
        share_state(self, module)
        self.arguments = tuple(arguments) if arguments else None
        self.event_ndims = tuple(event_ndims) if event_ndims else None
        self.call = call

    def compute(self, *tensors: Tensor, **aux: Sink) -> Tensor | tuple[Tensor, ...]:
        """Join if asked, then call the module; `aux` is a sink of auxiliary losses, for modules that take one."""
        if self.event_ndims is not None:
            tensors = (join_features(tensors, self.event_ndims),)
        return self.apply_module(tensors, aux)

    def apply_module(self, tensors: Sequence[Tensor], aux: Mapping[str, Sink]) -> Any:
        """What the module gives, called as `call` or `arguments` say, or with the tensors in order."""
        if self.call is not None:
            args, kwargs = self.call.arguments(tensors)
            return self.call.parts(self.module(*args, **kwargs, **aux), self.out_keys)
        if self.arguments is not None:
            return self.module(**dict(zip(self.arguments, tensors, strict=True)), **aux)
        return self.module(*tensors, **aux)

    @property
    def learner(self) -> Any:
        """The module itself, where it takes statistics."""
        return self.module if callable(getattr(self.module, "update", None)) else None

    def sink(self, mapping: TensorMapping) -> dict[str, Sink]:
        """The mapping's sink of auxiliary losses, where it has one and the module takes it."""
        if isinstance(mapping, dict) and AUX in mapping and takes_aux(self.module):
            return {AUX: mapping[AUX]}
        return {}


def takes_aux(module: nn.Module) -> bool:
    """Whether a module reports auxiliary losses: its forward has an argument `aux`."""
    own = module.__dict__.get("forward")
    return _has_argument_aux(type(module).forward) if own is None else "aux" in inspect.signature(own).parameters


@cache
def _has_argument_aux(forward: Callable[..., object]) -> bool:
    return "aux" in inspect.signature(forward).parameters
