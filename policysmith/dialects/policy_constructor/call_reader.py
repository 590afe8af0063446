"""Nodes and steps: what is called in which order, with what, and what the results are named.

In: `nodes` (a list, or a mapping and `order`) or `steps`, as written. Out: `CallNode`s, or problems, each at its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from policysmith.compile.late import CallNode
from policysmith.config.load import Path
from policysmith.config.located_data import quote
from policysmith.dialects.policy_constructor.document_problems import DocumentProblems, one_of
from policysmith.dialects.policy_constructor.signature import mismatches
from policysmith.errors import did_you_mean
from policysmith.graph.call import Call, Edge, edges_in
from policysmith.graph.operation import NamedFunction, Operation, find_function, function_names
from policysmith.registry import Registry

__all__ = ["CallReader", "check_arguments", "name_problem"]

NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
NODE_KEYS = ("name", "call", "args", "kwargs", "out")
STEP_KEYS = NODE_KEYS[1:]

Out = tuple[tuple[str, ...], tuple[int | str, ...] | None]


def name_problem(name: object) -> str | None:
    """Why this can't name a value or a module, or None."""
    if isinstance(name, str) and NAME.fullmatch(name):
        return None
    return f"invalid name {quote(name)}: letters, digits and _ only, not starting with a digit"


def check_arguments(
    report: DocumentProblems, function: Callable[..., Any], title: str, count: int, kwargs: Collection[str], path: Path
) -> None:
    """Report the arguments of a call that a callable does not take."""
    for name, message in mismatches(function, count, kwargs):
        at = (*path, "kwargs", name) if name else (*path, "args")
        report(at, f"{message} ({title})", at_key=bool(name))


class CallReader:
    """Reads the calls of one graph; `inputs` and `modules` are the names that they may use."""

    def __init__(
        self, inputs: Sequence[str], modules: Collection[str], registry: Registry, report: DocumentProblems
    ) -> None:
        self._inputs, self._modules, self._registry, self._report = inputs, modules, registry, report
        self.values: dict[str, Path | None] = dict.fromkeys(inputs)
        """Every value's name, with the path of the call that gives it."""
        self.used: set[str] = set()
        """The modules that are called."""
        self.complete = False
        """Whether every call could be looked at, so that a module which is not in `used` is never called."""

    def read(self, graph: Mapping[str, Any], path: Path) -> tuple[list[CallNode], list[Path]]:
        """The calls of a graph in the order they run, and their paths."""
        items = self._items(graph, path)
        self.complete = bool(items)
        found = self._calls(items)
        return [call for call, _ in found], [where for _, where in found]

    def _items(self, graph: Mapping[str, Any], path: Path) -> list[tuple[Mapping[str, Any], Path]]:
        if "nodes" in graph and "steps" in graph:
            self._report((*path, "steps"), "a graph has nodes or steps, not both: leave one out", at_key=True)
            return []
        if "order" in graph and not isinstance(graph.get("nodes"), Mapping):
            self._report((*path, "order"), "belongs to nodes that are a mapping; a list is in order", at_key=True)
        if "nodes" in graph:
            return self._nodes(graph, path)
        if "steps" not in graph:
            self._report(path, "needs 'nodes' or 'steps': what is called, and with what")
            return []
        return self._listed(graph["steps"], (*path, "steps"), STEP_KEYS)

    def _nodes(self, graph: Mapping[str, Any], path: Path) -> list[tuple[Mapping[str, Any], Path]]:
        nodes, here = graph["nodes"], (*path, "nodes")
        if not isinstance(nodes, Mapping):
            return self._listed(nodes, here, NODE_KEYS)
        order = graph.get("order")
        if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
            found = "found none" if order is None else f"found {quote(order)}"
            names = ", ".join(nodes)
            self._report((*path, "order"), f"nodes that are a mapping need it, such as order: [{names}]; {found}")
            return []
        for index, name in enumerate(order):
            if name not in nodes:
                self._report((*path, "order", index), f"there is no node {quote(name)}{one_of(name, nodes)}")
            elif name in order[:index]:
                self._report((*path, "order", index), f"{name!r} stands twice; a node runs once")
        if left := [name for name in nodes if name not in order]:
            self._report((*path, "order"), f"leaves out {', '.join(map(repr, left))}; every node runs once")
        found_nodes: list[tuple[Mapping[str, Any], Path]] = []
        for name in dict.fromkeys(name for name in order if name in nodes):
            if self._is_mapping(nodes[name], (*here, name), STEP_KEYS):
                found_nodes.append(({"name": name, **nodes[name]}, (*here, name)))
        return found_nodes

    def _listed(self, items: Any, path: Path, keys: Sequence[str]) -> list[tuple[Mapping[str, Any], Path]]:
        if not isinstance(items, list) or not items:
            kind = "a list, or a mapping and 'order'" if keys is NODE_KEYS else "a list"
            self._report(path, f"expected {kind} of calls, found {quote(items)}")
            return []
        return [(item, (*path, i)) for i, item in enumerate(items) if self._is_mapping(item, (*path, i), keys)]

    def _is_mapping(self, item: Any, path: Path, keys: Sequence[str]) -> bool:
        if not isinstance(item, Mapping):
            self._report(path, f"expected a mapping with 'call', found {quote(item)}")
            return False
        self._report.unknown_keys(path, item, keys)
        for key in ("name",) if keys is NODE_KEYS else ():
            if problem := name_problem(item[key]) if key in item else "required: what its result is called":
                self._report((*path, key), problem)
        return True

    def _calls(self, items: Sequence[tuple[Mapping[str, Any], Path]]) -> list[tuple[CallNode, Path]]:
        outs = [self._out(item, path) for item, path in items]
        later = {name: path for (names, _), (_, path) in zip(outs, items, strict=True) for name in names}
        calls, names = [], dict[str, Path]()
        for (item, path), out in zip(items, outs, strict=True):
            if (name := item.get("name")) in names and isinstance(name, str):
                self._report((*path, "name"), f"there is another node {name!r}; choose another name")
            elif isinstance(name, str):
                names[name] = path
            call = self._call(item, path, out, later)
            self._produce(out[0], (*path, "out") if "out" in item else path)
            if call:
                calls.append((call, path))
        return calls

    def _out(self, item: Mapping[str, Any], path: Path) -> Out:
        """The names of the results, and where in the result they are, if not the whole."""
        value, at = item.get("out", item.get("name")), (*path, "out")
        names: Sequence[Any]
        if isinstance(value, str):
            names, keys = [value], None
        elif isinstance(value, list) and value:
            names, keys = value, tuple[int | str, ...](range(len(value)))
        elif isinstance(value, Mapping) and value:
            names, keys = list(value.values()), tuple[int | str, ...](value)
        else:
            if "out" in item or "name" not in item:
                given = f", found {quote(value)}" if "out" in item else ""
                self._report(at, f"required: a name, a list of names, or a mapping from keys to names{given}")
            return (), None
        good = True
        for name in names:
            if (problem := name_problem(name)) and ("out" in item):
                self._report(at, problem)
            good = good and not problem
        return (tuple(names), keys) if good else ((), None)

    def _produce(self, names: Sequence[str], path: Path) -> None:
        for index, name in enumerate(names):
            if name in self.values or name in names[:index]:
                what = "an input's" if name in self._inputs else "taken by an earlier call"
                self._report(path, f"output name {name!r} is {what}; choose another")
            self.values.setdefault(name, path)

    def _call(self, item: Mapping[str, Any], path: Path, out: Out, later: Mapping[str, Path]) -> CallNode | None:
        kind, name, operation = self._called(item.get("call"), (*path, "call"))
        args = self._container(item.get("args"), list, "a list of positional arguments", (*path, "args"))
        kwargs = self._container(item.get("kwargs"), Mapping, "a mapping of arguments by name", (*path, "kwargs"))
        args = [self._argument(value, (*path, "args", i)) for i, value in enumerate(args)]
        kwargs = {key: self._argument(value, (*path, "kwargs", key)) for key, value in kwargs.items()}
        self._check_references([args, kwargs], path, later)
        if operation is not None:
            check_arguments(self._report, operation, f"op {name!r}", len(args), kwargs, path)
        if not kind or not out[0]:
            return None
        call = Call(tuple(args), kwargs, out[1], f"{kind}:{name}", self._report.place(path))
        return CallNode(name, call, out[0], Operation(NamedFunction(name, operation)) if operation else None)

    def _called(self, value: Any, path: Path) -> tuple[str, str, Callable[..., Any] | None]:
        """What is called: the kind (empty if it is wrong), the name, and the operation."""
        kind, _, name = value.partition(":") if isinstance(value, str) else ("", "", "")
        if kind not in ("module", "op") or not name:
            found = f", found {quote(value)}" if value is not None else ""
            self._report(path, f"expected module:<name> or op:<name>{found}")
            return "", "", None
        if kind == "module":
            self.used.add(name)
            if name in self._modules:
                return kind, name, None
            self._report(path, f"there is no module {quote(name)}{one_of(name, self._modules)}")
            return "", name, None
        function = find_function(name, self._registry)
        if function is None:
            self._report(path, f"unknown op {quote(name)}{one_of(name, function_names(self._registry))}")
            return "", name, None
        return kind, name, function

    def _container(self, value: Any, kind: Any, expected: str, path: Path) -> Any:
        if value is None:
            return kind() if kind is list else {}
        if not isinstance(value, kind):
            self._report(path, f"expected {expected}, found {quote(value)}")
            return kind() if kind is list else {}
        return value

    def _argument(self, value: Any, path: Path) -> Any:
        """A value with references in it: `$name`; `$$` stands for a plain `$`."""
        if isinstance(value, Mapping):
            return {key: self._argument(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._argument(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or not value.startswith("$"):
            return value
        if value.startswith("$$"):
            return value[1:]
        if name_problem(value[1:]):
            remedy = "write $name, op:getitem for a part of it, and $$ for a plain $"
            self._report(path, f"{quote(value)} refers to no name; {remedy}")
            return None
        return Edge(value[1:])

    def _check_references(self, arguments: Any, path: Path, later: Mapping[str, Path]) -> None:
        for name in dict.fromkeys(edges_in(arguments)):
            if name in self.values:
                continue
            if name in later:
                where = self._report.place(later[name])
                given = f"later, at {where}" if where else "later"
                self._report(path, f"${name} is a forward reference: it is only given {given}; reorder the calls")
            else:
                known = [*self.values, *later]
                hint = did_you_mean(name, known) or f"; there are: {', '.join(self.values)}"
                self._report(path, f"nothing gives ${name}{hint}")
