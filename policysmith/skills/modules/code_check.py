"""Whether code stays within the vocabulary of skills, found by reading its syntax tree; nothing is run or imported.

In: one function, and the names that its module defines. Out: problems, each with its line. What is not allowed is
refused: the lists say what may be written, never what may not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from policysmith.errors import did_you_mean
from policysmith.skills.modules.vocabulary import BUILTINS, CONSTANTS, FUNCTIONS, METHODS, NAMED_ARGUMENTS

__all__ = ["Names", "Trouble", "check_expression", "check_function", "nodes_below"]

Trouble = tuple[int, str]  # line, what is wrong there

STATEMENTS = (ast.Return, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.If, ast.For, ast.While, ast.Pass,
              ast.Break, ast.Continue, ast.Assert)  # fmt: skip
EXPRESSIONS = (
    ast.BoolOp, ast.NamedExpr, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Dict, ast.Set, ast.ListComp, ast.SetComp,
    ast.DictComp, ast.GeneratorExp, ast.Compare, ast.Call, ast.Constant, ast.Attribute, ast.Subscript, ast.Starred,
    ast.Name, ast.List, ast.Tuple, ast.Slice,
)  # fmt: skip
SIGNS = (ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop)  # all allowed, with nothing below them
PLAIN = (ast.arguments, ast.arg, ast.keyword, ast.comprehension, *SIGNS)
# Private names, those that lead from a generator to its frame and on, and those that reach memory or files.
REFUSED_ATTRIBUTE = re.compile(r"_.*|(gi|cr|ag|f|tb|co|func)_.*|format(_map)?|tofile|dumps?|ctypes|data|base")
ANNOTATIONS = frozenset({"bool", "float", "int", "str", "list", "tuple", "dict"})


@dataclass(frozen=True)
class Names:
    """What a module's functions may refer to: imports (alias → module), functions, and constants."""

    imports: Mapping[str, str]
    functions: frozenset[str] = frozenset()
    constants: frozenset[str] = frozenset()

    @property
    def fixed(self) -> frozenset[str]:
        """Names that mean one thing in the whole module."""
        return frozenset(self.imports) | self.functions | BUILTINS


def check_function(function: ast.FunctionDef, names: Names) -> Iterator[Trouble]:
    """Everything in a function that is not allowed."""
    line = function.lineno
    if function.decorator_list:
        yield line, "decorators are not allowed"
    if getattr(function, "type_params", None):
        yield line, "type parameters are not allowed"
    arguments = function.args
    if arguments.posonlyargs or arguments.vararg or arguments.kwarg:
        yield line, f"{function.name} must name its arguments: no *, ** or / (they are passed by name)"
    parameters = [arg.arg for arg in (*arguments.args, *arguments.kwonlyargs)]
    for default in (*arguments.defaults, *(d for d in arguments.kw_defaults if d is not None)):
        if not _is_number(default):
            yield default.lineno, f"a default must be a number or a truth value, found {_shown(default)}"
    for annotation in (*(a.annotation for a in (*arguments.args, *arguments.kwonlyargs)), function.returns):
        yield from _annotation(annotation, names)
    yield from _check_body(function, parameters, names)


def check_expression(node: ast.expr, names: Names) -> Iterator[Trouble]:
    """Everything in the value of a module's constant that is not allowed."""
    yield from _check_tree(node, names, set())


def nodes_below(node: ast.AST) -> list[ast.AST]:
    """`ast.iter_child_nodes`, without those that only say which operator it is, or whether a name is read."""
    found: list[ast.AST] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            found += [item for item in value if isinstance(item, ast.AST) and not isinstance(item, SIGNS)]
        elif isinstance(value, ast.AST) and not isinstance(value, SIGNS):
            found.append(value)
    return found


def _check_body(function: ast.FunctionDef, parameters: list[str], names: Names) -> Iterator[Trouble]:
    stores = [n for n in _walk(function) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)]
    stored = {node.id for node in stores}
    for name, line in [*((name, function.lineno) for name in parameters), *((n.id, n.lineno) for n in stores)]:
        if name in names.fixed:
            yield line, f"{function.name} gives {name!r} another meaning; choose another name"
    for statement in function.body:
        yield from _check_tree(statement, names, {*parameters, *stored})


def _walk(node: ast.AST) -> list[ast.AST]:
    found = [node]
    for other in found:
        found += nodes_below(other)
    return found


def _check_tree(root: ast.AST, names: Names, local: set[str]) -> Iterator[Trouble]:
    """Each node below `root` once; annotations and callees have rules of their own."""
    todo: list[tuple[ast.AST, bool]] = [(root, False)]
    while todo:
        node, called = todo.pop()
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.stmt) and not isinstance(node, STATEMENTS):
            yield line, f"{_kind(node)} is not allowed in a function of a skill"
            continue
        if not isinstance(node, (*STATEMENTS, *EXPRESSIONS, *PLAIN)):
            yield line, f"{_kind(node)} is not allowed"
            continue
        yield from _problems(node, names, local, called)
        if isinstance(node, ast.AnnAssign):
            yield from _annotation(node.annotation, names)
            todo += [(child, False) for child in (node.target, node.value) if child is not None]
        elif isinstance(node, ast.Attribute) and _of_import(node, names):
            pass  # looked at as a whole
        elif isinstance(node, ast.Call):
            todo += [(node.func, True), *((child, False) for child in (*node.args, *node.keywords))]
        else:
            todo += [(child, False) for child in nodes_below(node)]


def _problems(node: ast.AST, names: Names, local: set[str], called: bool) -> Iterator[Trouble]:
    if isinstance(node, ast.Name):
        yield from _name(node, names, local, called)
    elif isinstance(node, ast.Attribute):
        yield from _attribute(node, names, called)
    elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        yield node.lineno, "values are not changed in place: assign to a name"
    elif isinstance(node, ast.Call):
        yield from _call(node)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bytes):
        yield node.lineno, "bytes are not allowed"
    elif isinstance(node, ast.comprehension) and node.is_async:
        yield node.target.lineno, "async is not allowed"
    elif isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
        yield node.lineno, f"{_shown(node)} does nothing: only docstrings stand alone"


def _name(node: ast.Name, names: Names, local: set[str], called: bool) -> Iterator[Trouble]:
    name, line = node.id, node.lineno
    if name.startswith("__"):
        yield line, f"{name!r}: names that begin with two underscores are not allowed"
    elif not isinstance(node.ctx, ast.Load):
        return
    elif called and name not in names.functions | BUILTINS:
        what = "a value, not a function" if name in local | names.constants else "not a function that may be called"
        yield line, f"{name!r} is {what}{did_you_mean(name, names.functions | BUILTINS)}"
    elif not called and name in names.fixed:
        yield line, f"{name!r} can be called, but not passed on"
    elif not called and name not in local | names.constants:
        yield line, f"unknown name {name!r}{did_you_mean(name, local | names.constants)}"


def _attribute(node: ast.Attribute, names: Names, called: bool) -> Iterator[Trouble]:
    line, module = node.lineno, _of_import(node, names)
    if not isinstance(node.ctx, ast.Load):
        yield line, "values are not changed in place: assign to a name"
    elif module is not None:
        path = ".".join(_chain(node)[1:])
        allowed = FUNCTIONS[module] if called else CONSTANTS[module]
        if path not in allowed:
            what = "call" if called else "use"
            yield line, f"{module}.{path} is not on the list of what a skill may {what}{did_you_mean(path, allowed)}"
    elif REFUSED_ATTRIBUTE.fullmatch(node.attr):
        yield line, f"the attribute {node.attr!r} is not allowed"
    elif called and node.attr not in METHODS:
        yield line, f"the method {node.attr!r} is not on the list{did_you_mean(node.attr, METHODS)}"


def _call(node: ast.Call) -> Iterator[Trouble]:
    if not isinstance(node.func, ast.Name | ast.Attribute):
        yield node.lineno, f"{_shown(node.func)} is not a function that may be called"
    named = isinstance(node.func, ast.Name) and node.func.id not in BUILTINS  # a helper has arguments of its own
    for keyword in node.keywords:
        if keyword.arg is None:
            yield node.lineno, "** is not allowed in a call"
        elif not named and keyword.arg not in NAMED_ARGUMENTS:
            yield node.lineno, f"the argument {keyword.arg!r} is not on the list"


def _annotation(node: ast.expr | None, names: Names) -> Iterator[Trouble]:
    """An annotation is evaluated when the function is defined, so it is a plain type."""
    if node is None or (isinstance(node, ast.Name) and node.id in ANNOTATIONS):
        return
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str)):
        return
    module = _of_import(node, names) if isinstance(node, ast.Attribute) else None
    if module is not None and ".".join(_chain(node)[1:]) in CONSTANTS[module]:
        return
    yield node.lineno, f"the annotation {_shown(node)} is not a plain type; leave it out"


def _of_import(node: ast.Attribute, names: Names) -> str | None:
    """The module that `alias.a.b` reads from, if its first name is an import."""
    chain = _chain(node)
    return names.imports.get(chain[0]) if chain else None


def _chain(node: ast.expr) -> list[str]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def _is_number(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool | int | float))


def _kind(node: ast.AST) -> str:
    return {"JoinedStr": "an f-string", "ClassDef": "a class"}.get(type(node).__name__, type(node).__name__.lower())


def _shown(node: ast.AST) -> str:
    text = ast.unparse(node)
    return repr(text if len(text) <= 40 else text[:37] + "…")
