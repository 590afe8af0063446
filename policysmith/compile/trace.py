"""Tracing a function of modules into one `torch.fx.Graph`, through every module that allows it.

A module stays a call where its forward branches on tensors or shapes, writes to itself, makes tensors of its own,
or carries hooks. Everything else dissolves into functional calls on the live parameter dictionaries.

Nothing is patched for it, as `torch.fx.Tracer.trace` would patch `nn.Module` for every thread: the function is called
with stand-ins for the modules. A module that is reached past its stand-in, through someone's closure say, is noticed by
its frame on the stack, and what led to it stays a call.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from policysmith.compile.guards import has_hooks
from policysmith.compile.inspect import may_inline
from policysmith.compile.stand_in import STORES, Snapshot, StandIns

__all__ = ["Trace", "trace"]

_CALL = nn.Module._call_impl.__code__  # the frame of every module that is called, but of no stand-in
_OWN_CALL = nn.Module.__call__

Owner = tuple[MutableMapping[str, Any], str]


@dataclass
class Trace:
    """A traced graph with what its names refer to: `leaves[i]` for calls, `owners[target]` for parameters.

    `snapshots` tells what each module was that the trace met.
    """

    graph: fx.Graph
    leaves: list[nn.Module] = field(default_factory=list)
    inlined: list[nn.Module] = field(default_factory=list)
    hooked: list[nn.Module] = field(default_factory=list)
    owners: dict[str, Owner] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    snapshots: Mapping[nn.Module, Snapshot] = field(default_factory=dict)

    def inside(self, root: nn.Module) -> Iterator[tuple[nn.Module, type]]:
        """A module and all below it as the trace saw them, each with its class."""
        yield root, self.snapshots[root].kind
        for child in self.snapshots[root].children.values():
            if child is not None:
                yield from self.inside(child)


def trace(body: Callable[..., Any], arity: int, modules: Iterable[nn.Module], *, inline: bool = True) -> Trace:
    """Trace `body(x0, …)` of `arity` tensors; `modules` are those whose parameters and buffers it may read.

    `body` calls and reads modules by `stand_in(module, value)`, with a value that follows from its arguments. With
    `inline=False` every module stays a call (the bound form).
    """
    tracer = _Tracer(inline, sys._getframe())
    for module in modules:
        tracer.stand_ins.of(module)
    inputs = [tracer.create_proxy("placeholder", f"x{i}", (), {}) for i in range(arity)]
    tracer.create_node("output", "output", (tracer.create_arg(body(*inputs)),), {})
    graph = tracer.graph
    constants = {n.target: getattr(tracer.root, n.target) for n in graph.nodes if _is_constant(n, tracer.owners)}
    return Trace(
        graph, tracer.leaves, tracer.inlined, tracer.hooked, tracer.owners, constants, tracer.stand_ins.snapshots
    )


class _Untraceable(Exception):
    """This forward must stay a call."""


class _NoFreshTensors(TorchFunctionMode):
    """Refuses tensors made from nothing while tracing: they would be frozen into the code (random ones above all)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            raise _Untraceable
        return result


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(self, inline: bool, base: FrameType) -> None:
        super().__init__()
        self.inline = inline
        self.root, self.graph, self.tensor_attrs = nn.Module(), fx.Graph(tracer_cls=_Tracer), {}
        self._qualname_counter = defaultdict(int)  # fx's own is shared by all tracers
        self.leaves: list[nn.Module] = []
        self.inlined: list[nn.Module] = []
        self.hooked: list[nn.Module] = []
        self.owners: dict[str, Owner] = {}
        self.stand_ins = StandIns(self)
        self._proxies: dict[tuple[int, str], fx.Proxy] = {}
        self._base = base

    def call(self, twin: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Trace through the module, or take back what was traced and keep it as a call."""
        module = self.stand_ins.module(twin)
        hooked = has_hooks(module)
        if self.inline and hooked:
            self.hooked.append(module)
        if not self.inline or hooked or type(module).__call__ is not _OWN_CALL or not may_inline(module):
            return self._leaf(module, args, kwargs)
        nodes, leaves, inlined = len(self.graph.nodes), len(self.leaves), len(self.inlined)
        owners, proxies, before = dict(self.owners), dict(self._proxies), _state(twin)
        try:
            with _NoFreshTensors():
                result = twin.forward(*args, **kwargs)
            if _changed(twin, before):
                raise _Untraceable
            self.inlined.append(module)
            return result
        except Exception:
            _restore(twin, before)
            for node in reversed(list(self.graph.nodes)[nodes:]):
                self.graph.erase_node(node)
            del self.leaves[leaves:], self.inlined[inlined:]
            self.owners, self._proxies = owners, proxies
        return self._leaf(module, args, kwargs)

    def _leaf(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        self.leaves.append(module)
        return self.create_proxy("call_module", str(len(self.leaves) - 1), args, kwargs)

    def read(self, twin: nn.Module, name: str, tensor: Tensor) -> Any:
        """A parameter or buffer becomes a live read of the dictionary that holds it."""
        module = self.stand_ins.module(twin)
        for store in STORES[:2]:
            if twin.__dict__[store].get(name) is tensor:
                return self._live((module.__dict__[store], name))
        owner = self.stand_ins.owners.get(id(tensor))
        return tensor if owner is None else self._live(owner)

    def create_arg(self, a: Any) -> Any:
        """A tensor of a module that was read past its stand-in becomes a live read too."""
        owner = self.stand_ins.owners.get(id(a)) if isinstance(a, Tensor) else None
        return super().create_arg(a) if owner is None else self._live(owner).node

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        """A node; refused where a module itself is being called, whose hooks and mode nobody would look at."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame is not self._base:
            if frame.f_code is _CALL:
                raise _Untraceable
            frame = frame.f_back
        return self.graph.create_node(kind, *args, **kwargs)

    def _live(self, owner: Owner) -> fx.Proxy:
        key = (id(owner[0]), owner[1])
        if key not in self._proxies:
            target = f"tensor_{len(self.owners)}"
            self.owners[target] = owner
            self._proxies[key] = self.create_proxy("get_attr", target, (), {})
        return self._proxies[key]


State = tuple[dict[str, Any], dict[str, dict[str, Any]]]


def _state(twin: nn.Module) -> State:
    return dict(twin.__dict__), {name: dict(twin.__dict__[name]) for name in STORES}


def _changed(twin: nn.Module, before: State) -> bool:
    own, stores = before
    return _differ(twin.__dict__, own) or any(_differ(twin.__dict__[name], stores[name]) for name in STORES)


def _differ(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() != b.keys() or any(a[name] is not value for name, value in b.items())


def _restore(twin: nn.Module, before: State) -> None:
    own, stores = before
    twin.__dict__.clear()
    twin.__dict__.update(own)
    for name, entries in stores.items():
        store = twin.__dict__[name]
        store.clear()
        store.update(entries)


def _is_constant(node: fx.Node, owners: dict[str, Owner]) -> bool:
    return node.op == "get_attr" and node.target not in owners
