"""Functions of a skill's module, translated: their signatures and statements.

In: a function's node. Out: a function of flat code, and problems with their lines. Statements that have no method here
are refused.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from policysmith.skills.sandbox.calls import Calls
from policysmith.skills.sandbox.expressions import MODERATE, stored_names
from policysmith.skills.sandbox.scope import Kind, Scope
from policysmith.skills.sandbox.syntax_nodes import chain, kind_name, shown, unread
from policysmith.skills.sandbox.translated_module import Signature
from policysmith.skills.sandbox.vocabulary import ANNOTATIONS, CONSTANTS

__all__ = ["ENTRY", "Functions", "parameters_of"]

DEEPEST_LOOPS = 15  # in one another; Python's compiler gives up at 20
ENTRY = re.compile(r"task_\d+_(is_done|reward|network_number)")  # an environment calls them
PASSES = 6  # until the kinds of local names are settled


class Functions(Calls):
    """Statements and functions."""

    _loops = 0

    def function(self, node: ast.FunctionDef, signature: Signature, *, data: bool) -> ast.FunctionDef:
        """A function; `data`: nobody but an environment gives it its arguments."""
        names = dict(signature.parameters)
        for name in _stored_in(node):
            if name not in names:
                names[name] = self.module.fresh("v", name)
        for name in signature.parameters:
            if self.module.is_fixed(name):
                self.refused(node, f"{node.name} gives {name!r} another meaning; choose another name")
        given = self._given(node, signature, data)
        scope = Scope(self.module, node.name, names, kinds=given)
        body = self.body(node.body, scope)
        for _ in range(PASSES):
            if not scope.unsure:
                break
            scope = Scope(self.module, node.name, names, kinds=scope.kinds)
            body = self.body(node.body, scope)
        if scope.unsure:
            body = self.body(node.body, Scope(self.module, node.name, names, vague=True))
        if self.module.busy:
            body = [self._tick(), *body]
        made = ast.FunctionDef(signature.slot, self._arguments(node, signature), body, [])
        return ast.copy_location(made, node)

    def _given(self, node: ast.FunctionDef, signature: Signature, data: bool) -> dict[str, Kind]:
        """What is known of the arguments: they come from an environment, from calls of the text, or from defaults."""
        flow, arguments = self.module.flow, node.args
        plain = arguments.args[len(arguments.args) - len(arguments.defaults) :]
        pairs = [*zip(plain, arguments.defaults, strict=True),
                 *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]  # fmt: skip
        for argument, default in pairs:
            if default is not None:
                floating = isinstance(number_of(default), float)
                flow.note(signature.parameters[argument.arg], Kind.FLOAT if floating else Kind.DATA)
        if ENTRY.fullmatch(node.name):
            for numbered in signature.parameters.values():
                flow.note(numbered, Kind.DATA)
        if data:
            return dict.fromkeys(signature.parameters.values(), Kind.DATA)
        return {numbered: flow.kind(numbered) for numbered in signature.parameters.values()}

    def check_signature(self, node: ast.FunctionDef) -> None:
        """Refuse what a function's head may not have."""
        if node.decorator_list:
            self.refused(node, "decorators are not allowed")
        self.read_whole(node, node)
        arguments = node.args
        self.read_whole(arguments, node)
        if arguments.posonlyargs or arguments.vararg or arguments.kwarg:
            self.refused(node, f"{node.name} must name its arguments: no *, ** or / (they are passed by name)")
        named = [*arguments.args, *arguments.kwonlyargs]
        for argument in named:
            self.read_whole(argument, argument)
            if sum(other.arg == argument.arg for other in named) > 1:
                self.refused(node, f"{node.name} has two arguments {argument.arg!r}")
        for default in (*arguments.defaults, *(d for d in arguments.kw_defaults if d is not None)):
            if not _is_plain(default):
                self.refused(default, f"a default must be a number or a truth value, found {shown(default)}")
        for annotation in (*(argument.annotation for argument in named), node.returns):
            self.annotation(annotation)

    def annotation(self, node: ast.expr | None) -> None:
        """An annotation says a plain type, or nothing. It is not part of what runs."""
        if node is None or (isinstance(node, ast.Name) and node.id in ANNOTATIONS):
            return
        if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str)):
            return
        module = self.module_of(node) if isinstance(node, ast.Attribute) else None
        if module is None or ".".join(chain(node)[1:]) not in CONSTANTS[module]:
            self.refused(node, f"the annotation {shown(node)} is not a plain type; leave it out")

    def body(self, nodes: Sequence[ast.stmt], scope: Scope) -> list[ast.stmt]:
        """Statements one after another; at least one."""
        made: list[ast.stmt] = []
        for node in nodes:
            translate = self.STATEMENTS.get(type(node))
            missing = unread(node)
            if translate is None or missing is not None:
                self.refused(node, f"{missing or kind_name(node)} is not allowed in a function of a skill")
                continue
            made += [ast.copy_location(statement, node) for statement in translate(self, node, scope)]
        return made or [ast.Pass()]

    def _arguments(self, node: ast.FunctionDef, signature: Signature) -> ast.arguments:
        slots = [ast.arg(slot) for slot in signature.parameters.values()]
        defaults = [self._default(default) for default in node.args.defaults]
        named = [None if default is None else self._default(default) for default in node.args.kw_defaults]
        count = signature.positional
        return ast.arguments([], slots[:count], None, slots[count:], named, None, defaults)

    def _default(self, node: ast.expr) -> ast.expr:
        return ast.copy_location(ast.Name(self.module.slot("constant", number_of(node)), ast.Load()), node)

    def _tick(self) -> ast.stmt:
        return ast.Expr(self.call(self.module.slot("budget", "tick")))

    def _return(self, node: ast.Return, scope: Scope) -> Iterator[ast.stmt]:
        value = None if node.value is None else self.value(node.value, scope)
        owner = self.module.functions.get(scope.owner)
        if owner is not None:
            self.module.flow.note(owner.slot, Kind.DATA if value is None else value.kind)
        yield ast.Return(None if value is None else value.tree)

    def _assign(self, node: ast.Assign, scope: Scope) -> Iterator[ast.stmt]:
        value = self.value(node.value, scope)
        tree = value.tree
        if any(isinstance(part, ast.Starred) for target in node.targets for part in ast.walk(target)):
            tree = self.each(tree)  # what * takes becomes a list
        yield ast.Assign([self.store(target, scope, value.kind) for target in node.targets], tree)

    def _annotated(self, node: ast.AnnAssign, scope: Scope) -> Iterator[ast.stmt]:
        self.annotation(node.annotation)
        if node.value is not None:
            value = self.value(node.value, scope)
            yield ast.Assign([self.store(node.target, scope, value.kind)], value.tree)
        elif not isinstance(node.target, ast.Name):
            self.refused(node, "values are not changed in place: assign to a name")

    def _augmented(self, node: ast.AugAssign, scope: Scope) -> Iterator[ast.stmt]:
        """`x += y` as `x = x + y`: what x was before is not changed."""
        value = self.value(node.value, scope)
        if not isinstance(node.target, ast.Name):
            self.refused(node, "values are not changed in place: assign to a name")
            return
        before = self.value(ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target), scope)
        after = self.operation(node, before, value, node.value)
        ast.copy_location(after.tree, node)
        yield ast.Assign([self.store(node.target, scope, after.kind)], after.tree)

    def _alone(self, node: ast.Expr, scope: Scope) -> Iterator[ast.stmt]:
        self.value(node.value, scope)
        if not isinstance(node.value, ast.Constant):
            self.refused(node, f"{shown(node)} does nothing: only docstrings stand alone")
        yield ast.Pass()

    def _if(self, node: ast.If, scope: Scope) -> Iterator[ast.stmt]:
        test = self.value(node.test, scope).tree
        yield ast.If(test, self.body(node.body, scope), self.body(node.orelse, scope) if node.orelse else [])

    def _for(self, node: ast.For, scope: Scope) -> Iterator[ast.stmt]:
        values = self.value(node.iter, scope)
        target = self.store(node.target, scope, Kind.DATA if values.kind.safe else Kind.ANY)
        body = self._loop(node, scope)
        yield ast.For(target, self.each(values.tree), body, self.body(node.orelse, scope) if node.orelse else [])

    def _while(self, node: ast.While, scope: Scope) -> Iterator[ast.stmt]:
        test = self.value(node.test, scope).tree
        body = [ast.copy_location(self._tick(), node), *self._loop(node, scope)]
        yield ast.While(test, body, self.body(node.orelse, scope) if node.orelse else [])

    def _loop(self, node: ast.For | ast.While, scope: Scope) -> list[ast.stmt]:
        if self._loops == DEEPEST_LOOPS:
            self.refused(node, f"loops lie in one another at most {DEEPEST_LOOPS} deep")
        self._loops += 1
        body = self.body(node.body, scope)
        self._loops -= 1
        return body

    def _pass(self, node: ast.Pass, scope: Scope) -> Iterator[ast.stmt]:
        yield ast.Pass()

    def _jump(self, node: ast.Break | ast.Continue, scope: Scope) -> Iterator[ast.stmt]:
        if not self._loops:
            self.refused(node, f"{kind_name(node)} stands outside a loop")
        yield type(node)()

    def _assert(self, node: ast.Assert, scope: Scope) -> Iterator[ast.stmt]:
        message = None if node.msg is None else self.value(node.msg, scope).tree
        yield ast.Assert(self.value(node.test, scope).tree, message)

    STATEMENTS: ClassVar[dict[type[ast.stmt], Callable[..., Iterator[ast.stmt]]]] = {
        ast.Return: _return, ast.Assign: _assign, ast.AnnAssign: _annotated, ast.AugAssign: _augmented,
        ast.Expr: _alone, ast.If: _if, ast.For: _for, ast.While: _while, ast.Pass: _pass, ast.Break: _jump,
        ast.Continue: _jump, ast.Assert: _assert,
    }  # fmt: skip


def parameters_of(node: ast.FunctionDef) -> tuple[list[str], list[str]]:
    """The names of a function's parameters, and those without a default."""
    arguments = node.args
    plain = arguments.args[: len(arguments.args) - len(arguments.defaults)]
    named = [arg for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None]
    return [arg.arg for arg in (*arguments.args, *arguments.kwonlyargs)], [arg.arg for arg in (*plain, *named)]


def number_of(node: ast.expr) -> bool | int | float | None:
    """A default: a number, perhaps with a minus; 0 where it is none, which was refused."""
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node, sign = node.operand, -1
    value = node.value if isinstance(node, ast.Constant) else 0
    if value is None or isinstance(value, bool):
        return value if sign == 1 else -int(value or 0)
    return sign * value if isinstance(value, int | float) else 0


def _is_plain(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
        if isinstance(node, ast.Constant) and node.value is None:
            return False
    if not isinstance(node, ast.Constant) or not (node.value is None or isinstance(node.value, bool | int | float)):
        return False
    return not isinstance(node.value, int) or abs(node.value) < MODERATE


def _stored_in(function: ast.FunctionDef) -> list[str]:
    """Names that a function gives a value to; those of comprehensions are their own."""
    found: list[str] = []
    todo: list[ast.AST] = list(function.body)
    for node in todo:
        if isinstance(node, ast.Assign):
            found += [name for target in node.targets for name in stored_names(target)]
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.For | ast.NamedExpr):
            found += stored_names(node.target)
        todo += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.FunctionDef)]
    return list(dict.fromkeys(found))
