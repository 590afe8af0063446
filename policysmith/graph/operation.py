"""Operations: plain functions of tensors as components, `{type: op, op: mul, args: [$h, 0.5]}`.

In: whatever the call's arguments are. Out: what the function gives.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar

import torch
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema
from torch import Tensor, fx, nn

from policysmith.config.located_data import quote
from policysmith.config.options import error_at, located
from policysmith.errors import did_you_mean
from policysmith.registry import Registry, register

__all__ = ["NamedFunction", "Operation", "find_function", "function_names"]

T = TypeVar("T")
OURS = ("policysmith", "torch", "operator", "_operator")


def cat(tensors: list[Tensor], dim: int = 0) -> Tensor:
    """Tensors side by side along an axis they have."""
    return torch.cat(tensors, dim)


def stack(tensors: list[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new axis."""
    return torch.stack(tensors, dim)


def identity(x: T) -> T:
    """The value itself, unchanged."""
    return x


FUNCTIONS: dict[str, Callable[..., object]] = {
    "add": operator.add,
    "mul": operator.mul,
    "getitem": operator.getitem,
    "cat": cat,
    "stack": stack,
    "identity": identity,
}


def find_function(name: object, registry: Registry) -> Callable[..., object] | None:
    """The function of that name: one that a user registered in the slot `op`, else one of ours."""
    if not isinstance(name, str):
        return None
    return registry.entry("op", name).target if name in registry.names("op") else FUNCTIONS.get(name)


def function_names(registry: Registry) -> list[str]:
    """All names that `find_function` knows."""
    return list(dict.fromkeys([*FUNCTIONS, *registry.names("op")]))


@dataclass(frozen=True)
class NamedFunction:
    """A function with the name that configurations give it."""

    name: str
    function: Callable[..., object]

    def encode(self) -> str:
        """The name."""
        return self.name


class FunctionOption:
    """Annotation of an option that names an operation."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def decode(value: object, info: core_schema.ValidationInfo) -> NamedFunction:
            registry = (info.context or {})["registry"]
            if isinstance(value, NamedFunction):
                return value
            function = find_function(value, registry)
            if function is None or not isinstance(value, str):
                names = function_names(registry)
                hint = did_you_mean(value, names) or f"; there are: {', '.join(names)}"
                raise located("op", [error_at((), f"unknown operation {quote(value)}{hint}", value)])
            return NamedFunction(value, function)

        return core_schema.with_info_plain_validator_function(decode)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: object) -> dict[str, object]:
        return {"anyOf": [{"enum": list(FUNCTIONS)}, {"type": "string"}]}


@register("op")
class Operation(nn.Module):
    """A function of tensors, ours or of the slot `op`, called with edges and constants.

    Someone else's function is never traced through: it may do more than tracing sees.

    Args:
        op: The name of the function.
    """

    keeps_start = True  # there is nothing to initialise

    def __init__(self, op: Annotated[NamedFunction, FunctionOption()]) -> None:
        super().__init__()
        self._function = op.function
        self._traceable = str(getattr(op.function, "__module__", "")).split(".")[0] in OURS

    def forward(self, *args: object, **kwargs: object) -> object:
        """What the function gives."""
        if not self._traceable:
            for value in _leaves([args, kwargs]):
                if isinstance(value, fx.Proxy):
                    return value.tracer.create_proxy("call_function", self._function, args, kwargs)
        return self._function(*args, **kwargs)


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, Mapping | list | tuple):
        for below in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(below)
    else:
        yield value
