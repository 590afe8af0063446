"""Expressions of a skill's code, translated: each becomes an expression of flat code over numbered slots.

In: nodes of the syntax tree. Out: nodes of our own making, and problems with their lines. A node that has no method
here is refused.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import ClassVar

from policysmith.errors import did_you_mean
from policysmith.skills.sandbox.bounds import LARGEST_WHOLE_NUMBER
from policysmith.skills.sandbox.scope import Kind, Module, Scope, Trouble, Value, joined
from policysmith.skills.sandbox.syntax_nodes import chain, kind_name, unread
from policysmith.skills.sandbox.vocabulary import CONSTANTS, NO_FEATURE

__all__ = ["Expressions", "MODERATE", "stored_names"]

MODERATE = 1 << 31  # whole numbers of the text that products with data may have
LITERAL_POWER = 4
OPERATOR_NAMES = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "truediv", ast.FloorDiv: "floordiv", ast.Mod: "mod",
    ast.Pow: "pow", ast.LShift: "lshift", ast.RShift: "rshift", ast.BitAnd: "and_", ast.BitOr: "or_",
    ast.BitXor: "xor", ast.MatMult: "matmul",
}  # fmt: skip


class Expressions:
    """Translates what gives a value. `problems` takes everything that is refused."""

    def __init__(self, module: Module, problems: list[Trouble]) -> None:
        self.module, self.problems = module, problems
        self._in_iterable = 0

    def value(self, node: ast.expr, scope: Scope) -> Value:
        """An expression that is read."""
        translate = self.CASES.get(type(node))
        missing = unread(node)
        if translate is None or missing is not None:
            return self.refused(node, f"{missing or kind_name(node)} is not allowed")
        found = translate(self, node, scope)
        ast.copy_location(found.tree, node)
        return found

    def refused(self, node: ast.AST, why: str) -> Value:
        """Something that is not allowed; the value stands in for it, nobody will run it."""
        self.problems.append((getattr(node, "lineno", 0), why))
        return Value(ast.Name("v0", ast.Load()), Kind.ANY)

    def read_whole(self, node: ast.AST, place: ast.AST) -> None:
        """Refuse a node of which something is not translated; `place` has its line."""
        if missing := unread(node):
            self.refused(place, f"{missing} is not allowed")

    def call(self, slot: str, *values: ast.expr) -> ast.Call:
        """A call of a table entry."""
        return ast.Call(ast.Name(slot, ast.Load()), list(values), [])

    def each(self, tree: ast.expr) -> ast.expr:
        """Values that are gone through, counted."""
        return self.call(self.module.slot("budget", "each"), tree)

    def store(self, node: ast.expr, scope: Scope, kind: Kind, *, inside: bool = False) -> ast.expr:
        """A target of an assignment; `kind` is what is known of the value."""
        if missing := unread(node):
            return self.refused(node, f"{missing} is not allowed").tree
        if isinstance(node, ast.Name):
            return self._store_name(node, scope, kind)
        if isinstance(node, ast.Tuple | ast.List):
            if sum(isinstance(item, ast.Starred) for item in node.elts) > 1:
                return self.refused(node, "only one * can take the rest").tree
            below = Kind.DATA if kind.safe else Kind.ANY
            items = [self.store(item, scope, below, inside=True) for item in node.elts]
            return ast.copy_location(ast.Tuple(items, ast.Store()), node)
        if isinstance(node, ast.Starred) and inside:
            return ast.copy_location(ast.Starred(self.store(node.value, scope, Kind.ANY), ast.Store()), node)
        if isinstance(node, ast.Attribute | ast.Subscript):
            return self.refused(node, "values are not changed in place: assign to a name").tree
        return self.refused(node, f"{kind_name(node)} can't be assigned to").tree

    def _store_name(self, node: ast.Name, scope: Scope, kind: Kind) -> ast.expr:
        name = node.id
        if name.startswith("__"):
            self.refused(node, f"{name!r}: names that begin with two underscores are not allowed")
        if self.module.is_fixed(name):
            self.refused(node, f"{scope.owner} gives {name!r} another meaning; choose another name")
        numbered = scope.find(name)
        if numbered is None:
            return self.refused(node, f"{name!r} can't be given a value here").tree
        scope.note(numbered, kind)
        return ast.copy_location(ast.Name(numbered, ast.Store()), node)

    def _name(self, node: ast.Name, scope: Scope) -> Value:
        name = node.id
        if name.startswith("__"):
            return self.refused(node, f"{name!r}: names that begin with two underscores are not allowed")
        numbered = scope.find(name)
        if self.module.is_fixed(name):
            return self.refused(node, f"{name!r} can be called, but not passed on")
        if numbered is not None:
            return Value(ast.Name(numbered, ast.Load()), scope.kind_of(numbered))
        if name in self.module.constants:
            numbered = self.module.constants[name]
            return Value(ast.Name(numbered, ast.Load()), self.module.kinds.get(numbered, Kind.ANY))
        known = {*self.module.constants, *_names(scope)}
        return self.refused(node, f"unknown name {name!r}{did_you_mean(name, known)}")

    def _constant(self, node: ast.Constant, scope: Scope) -> Value:
        value = node.value
        if isinstance(value, bytes):
            return self.refused(node, "bytes are not allowed")
        if not isinstance(value, bool | int | float | complex | str) and value not in (None, Ellipsis):
            return self.refused(node, f"a constant of the kind {type(value).__name__} is not allowed")
        if isinstance(value, int) and value.bit_length() > LARGEST_WHOLE_NUMBER:
            return self.refused(node, f"a whole number of more than {LARGEST_WHOLE_NUMBER:,} bits")
        return Value(ast.Name(self.module.slot("constant", value), ast.Load()), _kind_of(value))

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Value:
        module = self.module_of(node)
        if module is not None:
            path = ".".join(chain(node)[1:])
            if path not in CONSTANTS[module]:
                hint = did_you_mean(path, CONSTANTS[module])
                return self.refused(node, f"{module}.{path} is not on the list of what a skill may use{hint}")
            kind = Kind.FLOAT if module == "math" or path in ("e", "inf", "nan", "pi") else Kind.DATA
            return Value(ast.Name(self.module.slot("read", module, path), ast.Load()), kind)
        value = self.value(node.value, scope)
        if NO_FEATURE.fullmatch(node.attr):
            return self.refused(node, f"the attribute {node.attr!r} is not allowed")
        kind = Kind.DATA if value.kind.safe else Kind.ANY
        return Value(self.call(self.module.slot("attribute", node.attr), value.tree), kind)

    def module_of(self, node: ast.expr) -> str | None:
        """The module that `alias.a.b` reads from, if its first name is an import."""
        names = chain(node)
        return self.module.imports.get(names[0]) if len(names) > 1 else None

    def _subscript(self, node: ast.Subscript, scope: Scope) -> Value:
        value = self.value(node.value, scope)
        index = self._index(node.slice, scope)
        tree: ast.expr = ast.Subscript(value.tree, index, ast.Load())
        if isinstance(node.slice, ast.Slice) and not value.kind.safe:
            ast.copy_location(tree, node)
            tree = self.call(self.module.slot("budget", "copied"), tree)
        return Value(tree, value.kind if value.kind is not Kind.FLOAT else Kind.ANY)

    def _index(self, node: ast.expr, scope: Scope) -> ast.expr:
        if isinstance(node, ast.Slice):
            if missing := unread(node):
                return self.refused(node, f"{missing} is not allowed").tree
            ends = [None if end is None else self.value(end, scope).tree for end in (node.lower, node.upper, node.step)]
            return ast.copy_location(ast.Slice(*ends), node)
        if isinstance(node, ast.Tuple) and any(isinstance(item, ast.Slice) for item in node.elts):
            items = [self._index(item, scope) for item in node.elts]
            return ast.copy_location(ast.Tuple(items, ast.Load()), node)
        return self.value(node, scope).tree

    def _binary(self, node: ast.BinOp, scope: Scope) -> Value:
        return self.operation(node, self.value(node.left, scope), self.value(node.right, scope), node.right)

    def operation(self, node: ast.BinOp | ast.AugAssign, left: Value, right: Value, second: ast.expr) -> Value:
        """An operator between two values, with a bound around it where they may grow."""
        name = OPERATOR_NAMES.get(type(node.op))
        if name is None or unread(node.op):
            return self.refused(node, f"{kind_name(node.op)} is not allowed")
        plain, kind = _outcome(name, left.kind, right.kind, second)
        if plain:
            return Value(ast.BinOp(left.tree, type(node.op)(), right.tree), kind)
        return Value(self.call(self.module.slot("operator", name), left.tree, right.tree), kind)

    def _unary(self, node: ast.UnaryOp, scope: Scope) -> Value:
        value = self.value(node.operand, scope)
        if unread(node.op):
            return self.refused(node, f"{kind_name(node.op)} is not allowed")
        kind = Kind.DATA if isinstance(node.op, ast.Not) else value.kind
        return Value(ast.UnaryOp(type(node.op)(), value.tree), kind)

    def _boolean(self, node: ast.BoolOp, scope: Scope) -> Value:
        values = [self.value(value, scope) for value in node.values]
        if unread(node.op):
            return self.refused(node, f"{kind_name(node.op)} is not allowed")
        return Value(ast.BoolOp(type(node.op)(), [v.tree for v in values]), joined(v.kind for v in values))

    def _compare(self, node: ast.Compare, scope: Scope) -> Value:
        values = [self.value(value, scope) for value in (node.left, *node.comparators)]
        if refused := [op for op in node.ops if unread(op)]:
            return self.refused(node, f"{kind_name(refused[0])} is not allowed")
        first, *others = [value.tree for value in values]
        return Value(ast.Compare(first, [type(op)() for op in node.ops], others), Kind.DATA)

    def _choice(self, node: ast.IfExp, scope: Scope) -> Value:
        test, body, other = (self.value(part, scope) for part in (node.test, node.body, node.orelse))
        return Value(ast.IfExp(test.tree, body.tree, other.tree), joined([body.kind, other.kind]))

    def _walrus(self, node: ast.NamedExpr, scope: Scope) -> Value:
        value, name = self.value(node.value, scope), node.target.id
        comprehension: Scope | None = scope
        while comprehension is not None and comprehension.outer is not None:
            if name in comprehension.names:
                return self.refused(node, f"{name!r} is what the comprehension goes through; choose another name")
            comprehension = comprehension.outer
        if self._in_iterable:
            return self.refused(node, ":= is not allowed in what a comprehension goes through")
        target = self.store(node.target, scope.function, value.kind)
        if not isinstance(target, ast.Name):
            return self.refused(node, ":= gives a value to a name")
        return Value(ast.NamedExpr(target, value.tree), value.kind)

    def _sequence(self, node: ast.List | ast.Tuple | ast.Set, scope: Scope) -> Value:
        items = [self.item(item, scope).tree for item in node.elts]
        tree = ast.Set(items) if isinstance(node, ast.Set) else type(node)(items, ast.Load())
        return Value(tree, Kind.ANY)

    def item(self, node: ast.expr, scope: Scope) -> Value:
        """An item of a list, or an argument: *values among them."""
        if not isinstance(node, ast.Starred):
            return self.value(node, scope)
        if missing := unread(node):
            return self.refused(node, f"{missing} is not allowed")
        tree = ast.Starred(self.each(self.value(node.value, scope).tree), ast.Load())
        return Value(ast.copy_location(tree, node), Kind.ANY)

    def _dict(self, node: ast.Dict, scope: Scope) -> Value:
        if None in node.keys:
            return self.refused(node, "** is not allowed in a dict")
        keys: list[ast.expr | None] = [self.value(key, scope).tree for key in node.keys if key is not None]
        return Value(ast.Dict(keys, [self.value(value, scope).tree for value in node.values]), Kind.ANY)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, scope: Scope) -> Value:
        inner, generators = self._generators(node.generators, scope)
        element = self.value(node.elt, inner)
        kind = element.kind if isinstance(node, ast.GeneratorExp) and element.kind.safe else Kind.ANY
        return Value(type(node)(element.tree, generators), Kind.DATA if kind.safe else kind)

    def _dict_comprehension(self, node: ast.DictComp, scope: Scope) -> Value:
        inner, generators = self._generators(node.generators, scope)
        return Value(ast.DictComp(self.value(node.key, inner).tree, self.value(node.value, inner).tree, generators),
                     Kind.ANY)  # fmt: skip

    def _generators(self, nodes: Sequence[ast.comprehension], scope: Scope) -> tuple[Scope, list[ast.comprehension]]:
        inner, made = scope.within(), []
        for node in nodes:
            for name in stored_names(node.target):
                inner.names.setdefault(name, self.module.fresh("v", name))
        for index, node in enumerate(nodes):
            self.read_whole(node, node.target)
            if node.is_async:
                self.refused(node.target, "async is not allowed")
            self._in_iterable += 1
            values = self.value(node.iter, inner if index else scope)
            self._in_iterable -= 1
            target = self.store(node.target, inner, Kind.DATA if values.kind.safe else Kind.ANY)
            tests = [self.value(test, inner).tree for test in node.ifs]
            made.append(ast.comprehension(target, self.each(values.tree), tests, 0))
        return inner, made

    CASES: ClassVar[dict[type[ast.expr], Callable[..., Value]]] = {}


def stored_names(target: ast.expr) -> list[str]:
    """The names that a target gives a value to."""
    if isinstance(target, ast.Name):
        return [target.id]
    if isinstance(target, ast.Tuple | ast.List):
        return [name for item in target.elts for name in stored_names(item)]
    return stored_names(target.value) if isinstance(target, ast.Starred) else []


def _names(scope: Scope) -> set[str]:
    return set(scope.names) | (_names(scope.outer) if scope.outer is not None else set())


def _kind_of(value: object) -> Kind:
    if isinstance(value, float):
        return Kind.FLOAT
    if isinstance(value, str):
        return Kind.TEXT
    return Kind.ANY if isinstance(value, int) and abs(value) >= MODERATE else Kind.DATA


def _outcome(name: str, left: Kind, right: Kind, second: ast.expr) -> tuple[bool, Kind]:
    """Whether an operator may run as it is, and the kind of what it gives."""
    numeric, safe = left.numeric and right.numeric, left.safe and right.safe
    outcome = Kind.ARRAY if numeric else Kind.DATA
    match name:
        case "add" | "sub" | "mul" | "truediv" | "floordiv" if Kind.FLOAT in (left, right):
            return True, Kind.FLOAT if left is right else Kind.ARRAY  # no sequence goes with a float, no number grows
        case "add" if safe and (left.numeric or right.numeric):
            return True, Kind.ARRAY
        case "mul" | "lshift" if numeric:
            return True, Kind.ARRAY
        case "sub" | "truediv" | "floordiv" if safe:
            return True, Kind.ARRAY if left.numeric or right.numeric else Kind.DATA
        case "mod" | "rshift" if safe:
            return True, outcome
        case "and_" | "or_" | "xor" | "matmul" if safe:
            return True, Kind.ARRAY if numeric else Kind.ANY
        case "pow":
            literal = second.value if isinstance(second, ast.Constant) and type(second.value) in (int, float) else None
            if left.numeric and (right.numeric or literal is not None):
                return True, Kind.ARRAY
            if left is Kind.DATA and isinstance(literal, int | float) and abs(literal) <= LITERAL_POWER:
                return True, Kind.ANY
    # The bound refuses arrays of objects: beside an array the outcome is one, but for lists that are repeated.
    array = left is Kind.ARRAY or (right is Kind.ARRAY and name != "mod")
    return False, Kind.ARRAY if array and name != "mul" else Kind.ANY


Expressions.CASES = {
    ast.Name: Expressions._name, ast.Constant: Expressions._constant, ast.Attribute: Expressions._attribute,
    ast.Subscript: Expressions._subscript, ast.BinOp: Expressions._binary, ast.UnaryOp: Expressions._unary,
    ast.BoolOp: Expressions._boolean, ast.Compare: Expressions._compare, ast.IfExp: Expressions._choice,
    ast.NamedExpr: Expressions._walrus, ast.List: Expressions._sequence, ast.Tuple: Expressions._sequence,
    ast.Set: Expressions._sequence, ast.Dict: Expressions._dict, ast.ListComp: Expressions._comprehension,
    ast.SetComp: Expressions._comprehension, ast.GeneratorExp: Expressions._comprehension,
    ast.DictComp: Expressions._dict_comprehension,
}  # fmt: skip
