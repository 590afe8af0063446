"""Calls in a skill's code, translated: of builtins, functions of modules, methods, and the module's own functions.

In: call nodes. Out: calls of numbered slots. Whatever is not in the closed table can't be called.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from policysmith.errors import did_you_mean
from policysmith.skills.sandbox.expressions import Expressions
from policysmith.skills.sandbox.scope import Kind, Scope, Value, joined
from policysmith.skills.sandbox.syntax_nodes import chain, shown, unread
from policysmith.skills.sandbox.vocabulary import (
    ANY_NUMBER,
    BUILTINS,
    DTYPES,
    FLOAT_FUNCTIONS,
    FUNCTIONS,
    METHODS,
    NAMED_ARGUMENTS,
    NO_FEATURE,
    TEXT_ARGUMENTS,
)

__all__ = ["Calls"]

SPREAD = 8  # methods that take so many arguments take any number: reshape(*shape)
# Builtins that need no bound: they go through nothing, and make nothing that grows.
PLAIN = frozenset(["abs", "bool", "divmod", "float", "len"])
GOING_THROUGH = frozenset(["enumerate", "range", "reversed", "sum", "zip"])  # what comes out of data is data
# Functions that give whole numbers of Python, tuples or pairs.
NOT_ONE_ARRAY = {
    "numpy": ("count_nonzero", "where"),
    "jax.numpy": ("where",),
    "torch": ("max", "median", "min", "where"),
}
TO_PYTHON = frozenset(["bool", "float", "int", "item", "long", "max", "min"])


class Calls(Expressions):
    """Expressions, calls among them."""

    def call_of(self, node: ast.Call, scope: Scope) -> Value:
        """A call of whatever may be called."""
        function = node.func
        if isinstance(function, ast.Name) and not unread(function):
            return self._named(node, function.id, scope)
        if isinstance(function, ast.Attribute) and not unread(function):
            module = self.module_of(function)
            return self._of_module(node, module, scope) if module else self._method(node, function, scope)
        self.value(function, scope)
        return self.refused(node, f"{shown(function)} is not a function that may be called")

    def _named(self, node: ast.Call, name: str, scope: Scope) -> Value:
        values = [self.item(argument, scope) for argument in node.args]
        if name.startswith("__"):
            return self.refused(node, f"{name!r}: names that begin with two underscores are not allowed")
        if name in self.module.functions:
            return self._own(node, name, values, scope)
        named = self._keywords(node, scope)
        if name in BUILTINS:
            return self._builtin(node, name, values, named)
        local = scope.find(name) is not None or name in self.module.constants
        what = "a value, not a function" if local else "not a function that may be called"
        hint = did_you_mean(name, BUILTINS | frozenset(self.module.functions))
        return self.refused(node, f"{name!r} is {what}{hint}")

    def _builtin(self, node: ast.Call, name: str, values: list[Value], named: dict[str, Value]) -> Value:
        several = name in ("max", "min") and len(values) > 1 and not _spread(node)
        slot = self.module.slot("builtin" if name in PLAIN or several else "bounded", name)
        kind = joined(value.kind for value in values) if values else Kind.ANY
        if name == "float":
            kind = Kind.FLOAT
        elif name in ("all", "any", "bool", "len"):
            kind = Kind.DATA
        elif name in ("max", "min", "divmod") or name in GOING_THROUGH:
            kind = kind if several else Kind.DATA if kind.safe else Kind.ANY
        elif name != "abs":
            kind = Kind.ANY
        return Value(self._made(node, slot, values, named), kind)

    def _of_module(self, node: ast.Call, module: str, scope: Scope) -> Value:
        path = ".".join(chain(node.func)[1:])
        values = [self.item(argument, scope) for argument in node.args]
        named = self._keywords(node, scope)
        most = FUNCTIONS[module].get(path)
        if most is None:
            hint = did_you_mean(path, FUNCTIONS[module])
            return self.refused(node, f"{module}.{path} is not on the list of what a skill may call{hint}")
        if not self._counted(node, f"{module}.{path}", most, most == ANY_NUMBER):
            return Value(ast.Name("v0", ast.Load()), Kind.ANY)
        if module == "math":
            kind = Kind.FLOAT if path in FLOAT_FUNCTIONS else Kind.ANY
            return Value(self._made(node, self.module.slot("call", module, path), values, named), kind)
        safe = all(value.kind.safe for value in values) and _safe_named(node, named)
        slot = self.module.slot("call" if safe else "checked", module, path)
        one_array = path not in NOT_ONE_ARRAY.get(module, ()) or (path == "where" and len(values) > 1)
        return Value(self._made(node, slot, values, named), Kind.ARRAY if one_array else Kind.DATA)

    def _method(self, node: ast.Call, function: ast.Attribute, scope: Scope) -> Value:
        value, name = self.value(function.value, scope), function.attr
        values = [self.item(argument, scope) for argument in node.args]
        named = self._keywords(node, scope)
        if NO_FEATURE.fullmatch(name):
            return self.refused(node, f"the attribute {name!r} is not allowed")
        if name not in METHODS:
            return self.refused(node, f"the method {name!r} is not on the list{did_you_mean(name, METHODS)}")
        if not self._counted(node, f".{name}", METHODS[name], METHODS[name] >= SPREAD):
            return Value(ast.Name("v0", ast.Load()), Kind.ANY)
        texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        harmless = name != "astype" or all(text in DTYPES for text in texts if isinstance(text, str))
        safe = all(v.kind.safe or v.kind is Kind.TEXT for v in values) and _safe_named(node, named) and harmless
        method = self.call(self.module.slot("method" if safe else "checked method", name), value.tree)
        tree = ast.Call(ast.copy_location(method, node), [v.tree for v in values], self._named_trees(node, named))
        if not (value.kind.safe and safe) or name == "tolist":
            return Value(tree, Kind.ANY)
        return Value(tree, Kind.ARRAY if value.kind is Kind.ARRAY and name not in TO_PYTHON else Kind.DATA)

    def _own(self, node: ast.Call, name: str, values: list[Value], scope: Scope) -> Value:
        signature, flow = self.module.functions[name], self.module.flow
        named: list[ast.keyword] = []
        for keyword in node.keywords:
            slot = signature.parameters.get(keyword.arg or "")
            self.read_whole(keyword, node)
            value = self.value(keyword.value, scope)
            if keyword.arg is None:
                self.refused(node, "** is not allowed in a call")
            elif slot is None:
                hint = did_you_mean(keyword.arg, signature.parameters)
                self.refused(node, f"{name} has no argument {keyword.arg!r}{hint}")
            else:
                flow.note(slot, value.kind)
                named.append(ast.copy_location(ast.keyword(slot, value.tree), keyword))
        if not _spread(node):
            self._check_arguments(node, name)
        slots = list(signature.parameters.values())
        for slot, value in zip(slots, values, strict=False):
            flow.note(slot, value.kind)
        for slot in slots if _spread(node) else ():
            flow.note(slot, Kind.ANY)
        tree = ast.Call(ast.Name(signature.slot, ast.Load()), [v.tree for v in values], named)
        return Value(tree, flow.kind(signature.slot))

    def _check_arguments(self, node: ast.Call, name: str) -> None:
        signature = self.module.functions[name]
        plain = list(signature.parameters)[: signature.positional]
        if len(node.args) > len(plain):
            self.refused(node, f"{name} takes {len(plain)} arguments without a name, found {len(node.args)}")
        named = [keyword.arg for keyword in node.keywords if keyword.arg is not None]
        given = plain[: len(node.args)] + named
        for twice in dict.fromkeys(argument for argument in given if given.count(argument) > 1):
            self.refused(node, f"{name} is given {twice!r} twice")
        if missing := [argument for argument in signature.required if argument not in given]:
            self.refused(node, f"{name} needs {', '.join(missing)} as well")

    def _counted(self, node: ast.Call, name: str, most: int, any_number: bool) -> bool:
        """Whether no more arguments stand without a name than may: the next could be one that is written to."""
        if _spread(node) and not any_number:
            self.refused(node, f"* is not allowed in a call of {name}")
        elif len(node.args) > most:
            self.refused(node, f"{name} takes at most {most} arguments without a name, found {len(node.args)}")
        else:
            return True
        return False

    def _keywords(self, node: ast.Call, scope: Scope) -> dict[str, Value]:
        found = {}
        for keyword in node.keywords:
            self.read_whole(keyword, node)
            value = self.value(keyword.value, scope)
            if keyword.arg is None:
                self.refused(node, "** is not allowed in a call")
            elif keyword.arg not in NAMED_ARGUMENTS:
                self.refused(node, f"the argument {keyword.arg!r} is not on the list")
            elif keyword.arg in found:
                self.refused(node, f"the argument {keyword.arg!r} is given twice")
            else:
                found[keyword.arg] = value
        return found

    def _made(self, node: ast.Call, slot: str, values: Iterable[Value], named: dict[str, Value]) -> ast.Call:
        return ast.Call(ast.Name(slot, ast.Load()), [v.tree for v in values], self._named_trees(node, named))

    def _named_trees(self, node: ast.Call, named: dict[str, Value]) -> list[ast.keyword]:
        """Named arguments; their names are the table's."""
        return [ast.copy_location(ast.keyword(name, value.tree), node) for name, value in named.items()]


def _safe_named(node: ast.Call, named: dict[str, Value]) -> bool:
    """Whether array functions may have all named arguments without a look."""
    texts = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
    return all(value.kind.safe or texts.get(name) in TEXT_ARGUMENTS.get(name, ()) for name, value in named.items())


def _spread(node: ast.Call) -> bool:
    return any(isinstance(argument, ast.Starred) for argument in node.args)


Calls.CASES = {**Expressions.CASES, ast.Call: Calls.call_of}
