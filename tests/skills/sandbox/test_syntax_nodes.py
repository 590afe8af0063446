"""Whatever Python's syntax has, now or later, is translated as it is known, or refused."""

import ast

import pytest

from policysmith.skills.sandbox.calls import Calls
from policysmith.skills.sandbox.functions import Functions
from policysmith.skills.sandbox.scope import Module, Scope
from policysmith.skills.sandbox.syntax_nodes import FIELDS, IGNORED, unread

ABSTRACT = {
    ast.AST, ast.mod, ast.stmt, ast.expr, ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
    ast.excepthandler, ast.pattern, ast.type_ignore,
}  # fmt: skip
# Read by a translation of another node, and by no case of their own.
PARTS = {
    ast.Module, ast.Import, ast.ImportFrom, ast.alias, ast.FunctionDef, ast.arguments, ast.arg, ast.keyword,
    ast.comprehension, ast.Starred, ast.Slice,
}  # fmt: skip


def classes():
    found = [value for value in vars(ast).values() if isinstance(value, type) and issubclass(value, ast.AST)]
    return [kind for kind in dict.fromkeys(found) if kind not in ABSTRACT and not getattr(kind, "_deprecated", False)]


def current(kind):
    """Not one of the old classes that stand for `Constant` and the like, and parse to nothing."""
    return kind.__module__ in ("ast", "_ast") and kind.__name__ not in (
        "Num", "Str", "Bytes", "NameConstant", "Ellipsis", "Index", "ExtSlice", "Suite", "AugLoad", "AugStore", "Param",
        "slice",
    )  # fmt: skip


@pytest.mark.parametrize("kind", [k for k in classes() if current(k)], ids=lambda kind: kind.__name__)
def test_every_class_is_translated_with_all_its_fields_or_refused(kind):
    node = kind()
    if kind not in FIELDS:
        assert unread(node), "no case, so it is refused by its name"
        problems = []
        maker = Functions(Module(), problems)
        if issubclass(kind, ast.stmt):
            maker.body([kind(lineno=3)], Scope(maker.module, "f"))
            assert problems[0][0] == 3 and "is not allowed" in problems[0][1]
        elif issubclass(kind, ast.expr):
            maker.value(kind(lineno=3), Scope(maker.module, "f"))
            assert problems[0][0] == 3 and "is not allowed" in problems[0][1]
        return
    assert set(FIELDS[kind]) <= set(kind._fields)
    for field in set(kind._fields) - set(FIELDS[kind]) - IGNORED:
        full = kind()
        setattr(full, field, [ast.Name("x")])
        assert unread(full), f"{kind.__name__}.{field} is neither read nor refused"
    if issubclass(kind, ast.expr) and kind not in PARTS:
        assert kind in Calls.CASES
    if issubclass(kind, ast.stmt) and kind not in PARTS:
        assert kind in Functions.STATEMENTS


def test_a_class_or_a_field_of_a_later_python_is_refused():
    class Later(ast.expr):
        _fields = ("value",)

    problems = []
    maker = Functions(Module(), problems)
    maker.value(Later(lineno=7, value=None), Scope(maker.module, "f"))

    class Constant(ast.Constant):
        _fields = (*ast.Constant._fields, "run_this")

    FIELDS[Constant] = FIELDS[ast.Constant]
    try:
        assert unread(Constant(value=1, run_this=None)) is None
        assert unread(Constant(value=1, run_this=[ast.Name("x")])) == "constant with run this"
    finally:
        del FIELDS[Constant]
    assert problems == [(7, "later is not allowed")]
