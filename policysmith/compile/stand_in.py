"""Stand-ins: what a tracer calls and reads in place of modules, so that no module and no class is changed for it.

In: live modules. Out: for each a twin that shares its tensors and its children's twins, and that hands its calls and
the tensors that are read from it to the tracer. Other threads go on with the modules themselves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from types import MethodType
from typing import Any, NamedTuple, Protocol

from torch import Tensor, fx, nn

__all__ = ["Reader", "Snapshot", "StandIn", "StandIns", "stand_in", "STORES"]

READER = "_reader"  # where a stand-in keeps the tracer
STORES = ("_parameters", "_buffers", "_modules")
DEPTH = 6  # how deep modules are looked for in lists and mappings; what lies deeper can't be traced through

_TORCH_OWN = frozenset(nn.Module().__dict__)  # no modules to be found in these, but in _modules


class Reader(Protocol):
    """What stand-ins hand their calls and reads to."""

    stand_ins: StandIns

    def call(self, twin: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call of a module, by its stand-in."""

    def read(self, twin: nn.Module, name: str, tensor: Tensor) -> Any:
        """What code that reads a parameter or buffer gets for it."""


class Snapshot(NamedTuple):
    """What a module was when its stand-in was made; code that was traced from the stand-in is code for this."""

    twin: nn.Module
    kind: type[nn.Module]
    children: Mapping[str, nn.Module | None]

    @property
    def training(self) -> bool:
        """The module's mode."""
        return self.twin.training


class StandIn:
    """Stands before a module's own class among the bases of its stand-in's class."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Keep the module's class from learning of a subclass: it may register those."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Hand the call to the tracer."""
        return self.__dict__[READER].call(self, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)  # type: ignore[misc]
        return self.__dict__[READER].read(self, name, value) if isinstance(value, Tensor) else value


class StandIns:
    """The stand-ins of one trace, one for each module; `snapshots` tells what the modules were."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._twins: dict[int, nn.Module] = {}
        self._modules: dict[int, nn.Module] = {}
        self.snapshots: dict[nn.Module, Snapshot] = {}
        self.owners: dict[int, tuple[Any, str]] = {}

    def of(self, module: nn.Module) -> Any:
        """The stand-in of a module, made with those of all modules in it; a stand-in is its own."""
        if isinstance(module, StandIn):
            return module
        twin = self._twins.get(id(module))
        return self._make(module) if twin is None else twin

    def module(self, twin: nn.Module) -> nn.Module:
        """The module that a stand-in stands for."""
        return self._modules[id(twin)]

    def _make(self, module: nn.Module) -> nn.Module:
        state, kind = dict(module.__dict__), type(module)
        try:
            stores = {name: dict(state[name]) for name in STORES}
            twin: nn.Module = object.__new__(_class_of(kind))  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError):  # not Python's alone, as TorchScript's: it can only be called
            state, stores = dict(nn.Module().__dict__), {name: {} for name in STORES}
            twin = object.__new__(_class_of(nn.Module))
        self._twins[id(module)], self._modules[id(twin)] = twin, module  # before its children: they may lead back
        self.snapshots[module] = Snapshot(twin, kind, dict(stores["_modules"]))
        for name in ("_parameters", "_buffers"):
            owned = {id(t): (module.__dict__[name], key) for key, t in stores[name].items() if t is not None}
            self.owners.update(owned)
        twin.__dict__.update(state, **{READER: self._reader}, **stores)
        children = twin.__dict__["_modules"]
        children.update((name, self.of(child)) for name, child in stores["_modules"].items() if child is not None)
        for name, value in state.items():
            if name not in _TORCH_OWN:
                twin.__dict__[name] = self._twin_of(value, DEPTH)
        return twin

    def _twin_of(self, value: Any, depth: int) -> Any:
        """A value with stand-ins for the modules, and for those whose methods are bound, that are found in it."""
        if isinstance(value, nn.Module):
            return self.of(value)
        if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
            return MethodType(value.__func__, self.of(value.__self__))
        kind = type(value)
        if depth == 0 or kind not in (list, tuple, dict, OrderedDict):
            return value
        if kind in (list, tuple):
            items = [self._twin_of(item, depth - 1) for item in value]
            return kind(items) if any(a is not b for a, b in zip(items, value, strict=True)) else value
        entries = {key: self._twin_of(item, depth - 1) for key, item in dict(value).items()}
        return kind(entries) if any(entries[key] is not item for key, item in dict(value).items()) else value


def stand_in(module: nn.Module, value: Any) -> Any:
    """A module, or its stand-in where `value` is what a tracer of ours traces."""
    stand_ins = getattr(value.tracer, "stand_ins", None) if isinstance(value, fx.Proxy) else None
    return module if stand_ins is None else stand_ins.of(module)


@cache
def _class_of(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of stand-ins: a kind of the module's class, made without asking that class or its metaclass."""
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    made: type[nn.Module] = type.__new__(type(kind), kind.__name__, (StandIn, kind), names)
    return made
