"""Which nodes of Python's syntax are translated, and which of their fields are read. All else is refused.

In: a class of `ast` or a node. Out: its fields, or what to say of it. A Python that adds a class or a field to a class
adds nothing here: the class has no entry, and a field that is not read must be empty.
"""

from __future__ import annotations

import ast

__all__ = ["FIELDS", "IGNORED", "chain", "kind_name", "nodes_below", "shown", "unread"]

OPERATORS = (
    ast.And, ast.Or, ast.Add, ast.Sub, ast.Mult, ast.MatMult, ast.Div, ast.Mod, ast.Pow, ast.LShift, ast.RShift,
    ast.BitOr, ast.BitXor, ast.BitAnd, ast.FloorDiv, ast.Invert, ast.Not, ast.UAdd, ast.USub, ast.Eq, ast.NotEq,
    ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is, ast.IsNot, ast.In, ast.NotIn, ast.Load, ast.Store,
)  # fmt: skip

FIELDS: dict[type[ast.AST], tuple[str, ...]] = {
    ast.Module: ("body",),
    ast.Import: ("names",),
    ast.ImportFrom: ("module", "names", "level"),
    ast.alias: ("name", "asname"),
    ast.FunctionDef: ("name", "args", "body", "decorator_list", "returns"),
    ast.arguments: ("posonlyargs", "args", "vararg", "kwonlyargs", "kw_defaults", "kwarg", "defaults"),
    ast.arg: ("arg", "annotation"),
    ast.keyword: ("arg", "value"),
    ast.Return: ("value",),
    ast.Assign: ("targets", "value"),
    ast.AnnAssign: ("target", "annotation", "value", "simple"),
    ast.AugAssign: ("target", "op", "value"),
    ast.Expr: ("value",),
    ast.If: ("test", "body", "orelse"),
    ast.For: ("target", "iter", "body", "orelse"),
    ast.While: ("test", "body", "orelse"),
    ast.Pass: (),
    ast.Break: (),
    ast.Continue: (),
    ast.Assert: ("test", "msg"),
    ast.BoolOp: ("op", "values"),
    ast.NamedExpr: ("target", "value"),
    ast.BinOp: ("left", "op", "right"),
    ast.UnaryOp: ("op", "operand"),
    ast.IfExp: ("test", "body", "orelse"),
    ast.Dict: ("keys", "values"),
    ast.Set: ("elts",),
    ast.ListComp: ("elt", "generators"),
    ast.SetComp: ("elt", "generators"),
    ast.DictComp: ("key", "value", "generators"),
    ast.GeneratorExp: ("elt", "generators"),
    ast.comprehension: ("target", "iter", "ifs", "is_async"),
    ast.Compare: ("left", "ops", "comparators"),
    ast.Call: ("func", "args", "keywords"),
    ast.Constant: ("value",),
    ast.Attribute: ("value", "attr", "ctx"),
    ast.Subscript: ("value", "slice", "ctx"),
    ast.Starred: ("value", "ctx"),
    ast.Name: ("id", "ctx"),
    ast.List: ("elts", "ctx"),
    ast.Tuple: ("elts", "ctx"),
    ast.Slice: ("lower", "upper", "step"),
    **dict.fromkeys(OPERATORS, ()),
}

# They say nothing that could be run: comments that type checkers read, and whether a text was written u"…".
IGNORED = frozenset(["type_comment", "type_ignores", "kind"])


def nodes_below(node: ast.AST) -> list[ast.AST]:
    """`ast.iter_child_nodes`, without those that only say which operator it is, or whether a name is read."""
    found: list[ast.AST] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            found += [item for item in value if isinstance(item, ast.AST) and not isinstance(item, OPERATORS)]
        elif isinstance(value, ast.AST) and not isinstance(value, OPERATORS):
            found.append(value)
    return found


def unread(node: ast.AST) -> str | None:
    """What of a node nobody translates: the name of its class, or of a field that is not empty."""
    known = FIELDS.get(type(node))
    if known is None:
        return kind_name(node)
    for field in node._fields:
        if field not in known and field not in IGNORED and getattr(node, field, None):
            return f"{kind_name(node)} with {field.replace('_', ' ').replace('params', 'parameters')}"
    return None


def chain(node: ast.expr) -> list[str]:
    """`a.b.c` as its names; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def kind_name(node: ast.AST) -> str:
    """What a node is called in a message."""
    return {"JoinedStr": "an f-string", "ClassDef": "a class"}.get(type(node).__name__, type(node).__name__.lower())


def shown(node: ast.AST) -> str:
    """A node's text in a message, quoted and cut."""
    text = ast.unparse(node)
    return repr(text if len(text) <= 40 else text[:37] + "…")
