"""Straight-line Python from a traced graph: one statement an operation, live parameters, cheap guards.

Stock `GraphModule` code costs about a third more per node. The text is made from the checked graph alone: its names
are generated here, objects enter through the namespace, nothing of a user's text is ever part of it.
"""

from __future__ import annotations

import builtins
import keyword
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils.hooks import RemovableHandle

from policysmith.compile.guards import HOOKS, HookCheck, HooksSeen, Watch

if TYPE_CHECKING:
    from policysmith.compile.trace import Trace

__all__ = ["Emitted", "emit"]

_INFIX: dict[Any, str] = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
    operator.floordiv: "//",
    operator.pow: "**",
    operator.matmul: "@",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.eq: "==",
    operator.ne: "!=",
    operator.and_: "&",
    operator.or_: "|",
}

# Modules whose forward is the same in training and evaluation: no guard on their flag.
_MODE_FREE = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Sequential, nn.Tanh, nn.ReLU, nn.SiLU, nn.GELU, nn.ELU, nn.Sigmoid,
    nn.LeakyReLU, nn.Softplus, nn.Mish, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.Embedding, nn.Flatten, nn.Identity,
    nn.MaxPool2d, nn.AvgPool2d,
)  # fmt: skip

_MODE_FREE_FORWARDS = {kind.forward for kind in _MODE_FREE}

# An activation may overwrite what these give when nothing else reads it: their backward does not need their output.
_FRESH = (F.linear, F.conv1d, F.conv2d, F.conv3d)
_IN_PLACE: dict[Any, Any] = {torch.tanh: torch.tanh_, F.relu: torch.relu_, torch.sigmoid: torch.sigmoid_}

# Functional wrappers in Python that only forward to the same kernel when called like this.
_THIN: dict[Any, Callable[[tuple[Any, ...], dict[str, Any]], tuple[Any, tuple[Any, ...]] | None]] = {
    F.relu: lambda a, k: (torch.relu, a[:1]) if not k.get("inplace") else None,
    F.silu: lambda a, k: (torch._C._nn.silu, a[:1]) if not k.get("inplace") else None,
    F.layer_norm: lambda a, k: (torch.layer_norm, (*a, *(k[n] for n in ("weight", "bias", "eps")[len(a) - 2 :]))),
    F.embedding: lambda a, k: (torch.embedding, (a[1], a[0])) if set(a[2:]) <= {None, 2.0, False} and not k else None,
}

# Methods in Python that only forward to a function.
_METHODS: dict[Any, Callable[..., Any]] = {"unflatten": torch.unflatten}


class Emitted:
    """Emitted code: `function` runs it, `source` shows it."""

    def __init__(self, function: Callable[..., Any], source: str) -> None:
        self.function = function
        self.source = source


def emit(
    traced: Trace,
    arity: int,
    watches: Sequence[Watch],
    hooks: HooksSeen,
    rebuild: Callable[..., Any],
) -> Emitted:
    """Code for a trace, with guards that call `rebuild(*inputs)` where it no longer describes the modules.

    What can change silently is tested at each call: `watches`, children, training flags. Hooks raise torch's counter
    of hook handles, so one comparison covers them all, and a full look follows only when it moved. A parametrisation
    takes its parameter out of the dictionary, which the code notices as a KeyError. What is compared with is what the
    trace saw: another thread may have changed a module since.
    """
    writer = _Writer(traced)
    body = writer.statements()
    watched = [*(m.__dict__[name] for m in traced.inlined for name in HOOKS), *hooks.empty]
    below = (m for root in traced.inlined for m in traced.inside(root))
    hooked = HookCheck(watched, list(dict.fromkeys(below)), hooks.counter)
    for name, value in (
        ("handles", RemovableHandle),
        ("seen", hooked.seen),
        ("hooked", hooked),
        ("rebuild", rebuild),
        ("count", len),
    ):
        writer.bind(name, value)
    tests = ["handles.next_id != seen[0] and hooked()", *writer.tests(watches)]
    inputs = ", ".join(f"x{i}" for i in range(arity))
    condition = [f"        {'if (' if i == 0 else '    or '}{test}" for i, test in enumerate(tests)]
    lines = [
        f"def run({inputs}):",
        "    try:",
        *condition[:-1],
        f"{condition[-1]}):",
        f"            return rebuild({inputs})",
    ]
    lines += [f"        {line}" for line in body]
    lines += ["    except KeyError as error:", f"        return rebuild({inputs}, error=error)"]
    source = "\n".join(lines)
    namespace = {**writer.namespace, "__builtins__": {"KeyError": KeyError}}
    exec(compile(source, "<policysmith>", "exec"), namespace)  # generated names only, see above
    return Emitted(namespace["run"], source)


class _Writer:
    def __init__(self, traced: Trace) -> None:
        self.traced = traced
        self.namespace: dict[str, Any] = {}
        self._names: dict[int, str] = {}
        self._counts: dict[str, int] = {}
        self._values: dict[fx.Node, str] = {}
        self._free: list[str] = []
        self._count = 0

    def bind(self, name: str, value: Any) -> str:
        self.namespace[name] = value
        return name

    def name_of(self, prefix: str, value: Any) -> str:
        """A generated name for an object, the same each time."""
        if id(value) not in self._names:
            self._counts[prefix] = number = self._counts.get(prefix, -1) + 1
            self._names[id(value)] = self.bind(
                f"{prefix}{number or ''}" if len(prefix) > 1 else f"{prefix}{number}", value
            )
        return self._names[id(value)]

    def statements(self) -> list[str]:
        nodes = list(self.traced.graph.nodes)
        last_use = {argument: node for node in nodes for argument in node.all_input_nodes}
        lines = []
        inputs = 0
        for node in nodes:
            if node.op == "placeholder":
                self._values[node] = f"x{inputs}"
                inputs += 1
            elif node.op == "get_attr":
                self._values[node] = self._tensor(node)
            elif node.op == "output":
                lines.append(f"return {self.text(node.args[0])}")
            else:  # without users too: it may write in place
                lines.append(self._statement(node, last_use))
        return lines

    def _statement(self, node: fx.Node, last_use: Mapping[fx.Node, fx.Node]) -> str:
        expression = self._expression(node)
        for used in node.all_input_nodes:
            if last_use[used] is node and self._values[used].startswith("v"):
                self._free.append(self._values[used])  # its variable is reused, which frees the tensor early
        if not node.users:
            return expression
        if self._free:
            name = self._free.pop()
        else:
            name = f"v{self._count}"
            self._count += 1
        self._values[node] = name
        return f"{name} = {expression}"

    def _expression(self, node: fx.Node) -> str:
        args, kwargs = node.args, dict(node.kwargs)
        if node.op == "call_module":
            leaf = self.traced.leaves[int(str(node.target))]
            return f"{self.name_of('m', leaf)}({self._arguments(args, kwargs)})"
        if node.op == "call_method":
            if node.target in _METHODS:
                return f"{self.name_of(str(node.target), _METHODS[node.target])}({self._arguments(args, kwargs)})"
            return f"{self.text(args[0])}.{node.target}({self._arguments(args[1:], kwargs)})"
        target: Any = node.target
        if target in _INFIX and len(args) == 2:
            return f"({self.text(args[0])} {_INFIX[target]} {self.text(args[1])})"
        if target is builtins.getattr and isinstance(args[1], str) and args[1].isidentifier():
            return f"{self.text(args[0])}.{args[1]}"
        if target is operator.getitem:
            return f"{self.text(args[0])}[{self.text(args[1])}]"
        if target in _IN_PLACE and _overwritable(args[0]):
            target, args, kwargs = _IN_PLACE[target], args[:1], {}
        elif target in _THIN and (thin := _THIN[target](args, kwargs)) is not None:
            target, args, kwargs = *thin, {}
        return f"{self.name_of(_readable(target), target)}({self._arguments(args, kwargs)})"

    def _arguments(self, args: Any, kwargs: Mapping[str, Any]) -> str:
        return ", ".join([*(self.text(a) for a in args), *(f"{k}={self.text(v)}" for k, v in kwargs.items())])

    def text(self, value: Any) -> str:
        """An argument as an expression: a variable, a literal, or a bound object."""
        if isinstance(value, fx.Node):
            return self._values[value]
        if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return repr(value)
        if isinstance(value, tuple):
            return f"({''.join(f'{self.text(v)}, ' for v in value)})"
        if isinstance(value, list):
            return f"[{', '.join(self.text(v) for v in value)}]"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{self.text(k)}: {self.text(v)}' for k, v in value.items())}}}"
        if isinstance(value, slice):
            bounds = ", ".join(self.text(bound) for bound in (value.start, value.stop, value.step))
            return f"{self.name_of('slice', slice)}({bounds})"
        return self.name_of("k", value)

    def _tensor(self, node: fx.Node) -> str:
        if node.target in self.traced.owners:
            store, key = self.traced.owners[str(node.target)]
            return f"{self.name_of('p', store)}[{key!r}]"
        return self.name_of("k", self.traced.constants[str(node.target)])

    def tests(self, watches: Sequence[Watch]) -> list[str]:
        """Expressions that are true when the code is stale: another child, another mode."""
        tests: list[str] = []
        for module in dict.fromkeys(self.traced.inlined):
            if type(module).forward not in _MODE_FREE_FORWARDS:
                training = self.traced.snapshots[module].training
                tests.append(f"{self.name_of('d', module.__dict__)}['training'] is not {training}")
            tests += [test for holder in self._holders(module) for test in self._children(holder)]
        for module in dict.fromkeys(self.traced.hooked):
            hooks = [self.name_of("h", module.__dict__[name]) for name in HOOKS if module.__dict__[name]]
            tests += [f"not ({' or '.join(hooks)})"] if hooks else []  # flat again once they are gone
        for mapping, key, expected in watches:
            tests.append(f"{self.name_of('c', mapping)}[{key!r}] is not {self.name_of('m', expected)}")
        return list(dict.fromkeys(tests))

    def _holders(self, module: nn.Module) -> Iterator[nn.Module]:
        """The module and the lists and dicts of modules below it, which are read without being called."""
        yield module
        for child in self.traced.snapshots[module].children.values():
            if isinstance(child, nn.ModuleList | nn.ModuleDict):
                yield from self._holders(child)

    def _children(self, module: nn.Module) -> list[str]:
        seen = self.traced.snapshots[module].children
        if not seen:
            return []
        children = self.name_of("c", module._modules)
        same = [f"{children}[{name!r}] is not {self.name_of('m', child)}" for name, child in seen.items()]
        return [*same, f"count({children}) != {len(seen)}"]


_TAKEN = ("run", "count", "handles", "seen", "hooked", "rebuild", "error")


def _readable(function: Any) -> str:
    name = getattr(function, "__name__", "")
    taken = keyword.iskeyword(name) or name in _TAKEN or not name[-1:].isalpha() or len(name) < 2
    return name if name.isidentifier() and not taken else "f"


def _overwritable(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.target in _FRESH and len(node.users) == 1
