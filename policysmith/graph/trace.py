"""Tracing a function of modules into one `torch.fx.Graph`, through every module that allows it.

A module stays a call where its forward branches on tensors or shapes, writes to itself, makes tensors of its own,
or carries hooks. Everything else dissolves into functional calls on the live parameter dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules import module as torch_module
from torch.overrides import TorchFunctionMode

from policysmith.graph.inspect import may_inline

__all__ = ["GLOBAL_HOOKS", "Trace", "has_hooks", "trace"]

GLOBAL_HOOKS: tuple[dict[int, Any], ...] = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)

Owner = tuple[MutableMapping[str, Any], str]


@dataclass
class Trace:
    """A traced graph with what its names refer to: `leaves[i]` for calls, `owners[target]` for parameters."""

    graph: fx.Graph
    leaves: list[nn.Module] = field(default_factory=list)
    inlined: list[nn.Module] = field(default_factory=list)
    hooked: list[nn.Module] = field(default_factory=list)
    owners: dict[str, Owner] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)


def trace(body: Callable[..., Any], arity: int, modules: Iterable[nn.Module], *, inline: bool = True) -> Trace:
    """Trace `body(x0, …)` of `arity` tensors; `modules` are those whose parameters and buffers it may read.

    With `inline=False` every module stays a call (the bound form).
    """
    names = ", ".join(f"x{i}" for i in range(arity))
    function = eval(f"lambda {names}: body({names})", {"body": body})  # names are ours; fx reads the signature
    tracer = _Tracer(modules, inline)
    graph = tracer.trace(function)
    constants = {n.target: getattr(tracer.root, n.target) for n in graph.nodes if _is_constant(n, tracer.owners)}
    return Trace(graph, tracer.leaves, tracer.inlined, tracer.hooked, tracer.owners, constants)


def has_hooks(module: nn.Module) -> bool:
    """Whether calling the module does more than its forward: its own hooks, or torch's process-wide ones."""
    own = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(own) or any(GLOBAL_HOOKS)


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

    def __init__(self, modules: Iterable[nn.Module], inline: bool) -> None:
        super().__init__()
        self.inline = inline
        self.leaves: list[nn.Module] = []
        self.inlined: list[nn.Module] = []
        self.hooked: list[nn.Module] = []
        self.owners: dict[str, Owner] = {}
        self._proxies: dict[tuple[int, str], fx.Proxy] = {}
        self._stack: list[nn.Module] = []
        self._index = {
            id(tensor): (store, name)
            for root in modules
            for module in root.modules()
            for store in (module._parameters, module._buffers)
            for name, tensor in store.items()
            if tensor is not None
        }

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Trace through the module, or take back what was traced and keep it as a call."""
        if self.inline and has_hooks(m):
            self.hooked.append(m)
        if not self.inline or has_hooks(m) or not may_inline(m):
            return self._call(m, args, kwargs)
        nodes, leaves, inlined = len(self.graph.nodes), len(self.leaves), len(self.inlined)
        owners, proxies, state = dict(self.owners), dict(self._proxies), dict(m.__dict__)
        self._stack.append(m)
        try:
            with _NoFreshTensors():
                result = m.forward(*args, **kwargs)
            if _changed(m, state):
                raise _Untraceable
            self.inlined.append(m)
            return result
        except Exception:
            m.__dict__.clear()
            m.__dict__.update(state)
            for node in reversed(list(self.graph.nodes)[nodes:]):
                self.graph.erase_node(node)
            del self.leaves[leaves:], self.inlined[inlined:]
            self.owners, self._proxies = owners, proxies
        finally:
            self._stack.pop()
        return self._call(m, args, kwargs)

    def _call(self, m: nn.Module, args: Any, kwargs: Any) -> Any:
        self.leaves.append(m)
        return self.create_proxy("call_module", str(len(self.leaves) - 1), args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """A parameter or buffer becomes a live read of the dictionary that holds it."""
        owner = self._owner(attr, attr_val) if isinstance(attr_val, Tensor) else None
        if owner is None:
            return attr_val
        key = (id(owner[0]), owner[1])
        if key not in self._proxies:
            target = f"tensor_{len(self.owners)}"
            self.owners[target] = owner
            self._proxies[key] = self.create_proxy("get_attr", target, (), {})
        return self._proxies[key]

    def _owner(self, attr: str, tensor: Tensor) -> Owner | None:
        if self._stack:
            module = self._stack[-1]
            for store in (module._parameters, module._buffers):
                if store.get(attr) is tensor:
                    return store, attr
        return self._index.get(id(tensor))


def _changed(module: nn.Module, before: dict[str, Any]) -> bool:
    after = module.__dict__
    return after.keys() != before.keys() or any(after[name] is not value for name, value in before.items())


def _is_constant(node: fx.Node, owners: dict[str, Owner]) -> bool:
    return node.op == "get_attr" and node.target not in owners
