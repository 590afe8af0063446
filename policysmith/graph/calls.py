"""A graph of calls: modules and operations called with values that earlier calls gave.

In: `Call`s in the order they run. Out: steps that a `GraphModel` runs, and its `Program` traces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from policysmith.compile.program import Step
from policysmith.compile.stand_in import stand_in
from policysmith.errors import WiringError
from policysmith.graph.measure import TensorSpec

__all__ = [
    "Call",
    "CallPlan",
    "ModuleStep",
    "OperationStep",
    "Ref",
    "check_result",
    "references",
    "run_checked",
    "sources_of",
    "steps_of",
]

OURS = ("policysmith", "torch", "operator", "_operator")


@dataclass(frozen=True)
class Ref:
    """A value by its name, among the arguments of a call."""

    name: str


@dataclass(frozen=True)
class Call:
    """One call: what of (`module`, or else `operation` under `name`), with what, and what its result is named.

    `out` names the whole result, or (with `keys`) the parts of it at these keys; `place` says where it was written.
    """

    name: str
    operation: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: tuple[str, ...]
    keys: tuple[int | str, ...] | None = None
    place: str = ""

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{'module' if self.operation is None else 'op'}:{self.name}"


@dataclass(frozen=True)
class CallPlan:
    """A graph of calls: its inputs by name, the calls in order, and, once inputs were seen, every value's spec.

    `seed` is for weights whose shapes follow from the inputs. `edges` has an entry for each tensor: one row of it where
    its first axis is the batch, which is that of the first input.
    """

    inputs: tuple[str, ...]
    calls: tuple[Call, ...]
    seed: int | None = None
    edges: Mapping[str, TensorSpec] = field(default_factory=dict)


class ModuleStep(Step):
    """A call of a module in `store`, looked up each time."""

    opaque = False  # a plain module: tracing keeps it a call where it must

    def __init__(self, store: nn.ModuleDict, call: Call) -> None:
        super().__init__(store, call.name, sources_of(call), call.out)
        self.call = call

    def __call__(self, values: dict[str, Any]) -> None:
        """Read from and write to the values by name."""
        _write(self.call, self.compute(values), values)

    def compute(self, values: Mapping[str, Any]) -> Any:
        """What the module gives."""
        args, kwargs = _arguments(self.call, values)
        return stand_in(self.store[self.name], next(iter(values.values()), None))(*args, **kwargs)


class OperationStep:
    """A call of an operation. Someone else's is never traced through: it may do more than tracing sees."""

    def __init__(self, call: Call) -> None:
        self.call, self.sources, self.outputs = call, sources_of(call), call.out
        operation = call.operation
        assert operation
        self._operation = operation
        self._traceable = str(getattr(operation, "__module__", "")).split(".")[0] in OURS

    def __call__(self, values: dict[str, Any]) -> None:
        """Read from and write to the values by name."""
        _write(self.call, self.compute(values), values)

    def compute(self, values: Mapping[str, Any]) -> Any:
        """What the operation gives."""
        args, kwargs = _arguments(self.call, values)
        if not self._traceable:
            for value in (values[name] for name in self.sources):
                if isinstance(value, fx.Proxy):
                    return value.tracer.create_proxy("call_function", self._operation, args, kwargs)
        return self._operation(*args, **kwargs)


def steps_of(plan: CallPlan, modules: nn.ModuleDict) -> list[ModuleStep | OperationStep]:
    """The calls as steps over live modules."""
    return [ModuleStep(modules, call) if call.operation is None else OperationStep(call) for call in plan.calls]


def references(value: Any) -> Iterator[str]:
    """The names that an argument, or anything in it, refers to."""
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, Mapping | list | tuple):
        for below in value.values() if isinstance(value, Mapping) else value:
            yield from references(below)


def sources_of(call: Call) -> tuple[str, ...]:
    """The names that a call reads, each once."""
    return tuple(dict.fromkeys(references([call.args, call.kwargs])))


def run_checked(
    steps: Sequence[Any], values: dict[str, Any], failed: Callable[[int, Call, Exception], Exception]
) -> None:
    """Run steps one by one with every result looked at; `failed(index, call, error)` makes the error to raise."""
    for index, step in enumerate(steps):
        try:
            result = step.compute(values)
            check_result(step.call, result)
        except Exception as error:
            raise failed(index, step.call, error) from error
        _write(step.call, result, values)


def check_result(call: Call, result: Any) -> None:
    """Whether a result can be taken apart as `out` says; raises WiringError."""
    keys = call.keys
    if keys is None:
        return
    if isinstance(keys[0], str):
        if not isinstance(result, Mapping):
            raise WiringError(f"out is a mapping, so a dict is expected; it gave a {type(result).__name__}")
        if missing := [key for key in keys if key not in result]:
            there = ", ".join(map(repr, result)) or "none"
            raise WiringError(f"out asks for {', '.join(map(repr, missing))}, which it does not give; keys: {there}")
    elif not isinstance(result, tuple | list):
        raise WiringError(f"out is a list, so a tuple or a list is expected; it gave a {type(result).__name__}")
    elif len(result) != len(keys):
        raise WiringError(f"out has {len(keys)} names, {', '.join(call.out)}, for {len(result)} results")


def _arguments(call: Call, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args = tuple(_filled(value, values) for value in call.args)
    return args, {name: _filled(value, values) for name, value in call.kwargs.items()}


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.name]
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    return {k: _filled(v, values) for k, v in value.items()} if isinstance(value, dict) else value


def _write(call: Call, result: Any, values: dict[str, Any]) -> None:
    if call.keys is None:
        values[call.out[0]] = result
    else:
        for name, key in zip(call.out, call.keys, strict=True):
            values[name] = result[key]  # one by one, since a traced call's result can't be unpacked
