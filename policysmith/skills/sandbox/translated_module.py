"""A translated module: a syntax tree of our own making, and the table entries that its numbered slots stand for.

In: what the translator found. Out: a `TranslatedModule`, which `running.bind` makes functions of. The tree holds names
of four kinds (`v` locals, `g` constants of the module, `f` its functions, `s` slots), no constant, no attribute and no
text: `check_flat` goes by a list of what may be in it, so that no mistake of the translator can let anything else
through.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass

from policysmith.skills.sandbox.vocabulary import NAMED_ARGUMENTS

__all__ = ["TranslatedModule", "Signature", "Slot", "check_flat"]

# What a slot stands for: "constant" value, "read" module path, "call" module path, "checked" module path,
# "builtin" name, "operator" name, "budget" name, "attribute" name, "method" name, "checked method" name.
Slot = tuple[object, ...]

NAME = re.compile(r"[vgfs]\d+")
FLAT = (
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Assign, ast.Expr, ast.If, ast.For, ast.While,
    ast.Pass, ast.Break, ast.Continue, ast.Assert, ast.BoolOp, ast.NamedExpr, ast.BinOp, ast.UnaryOp, ast.IfExp,
    ast.Dict, ast.Set, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.Compare,
    ast.Call, ast.keyword, ast.Subscript, ast.Starred, ast.Name, ast.List, ast.Tuple, ast.Slice,
    ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip


@dataclass(frozen=True)
class Signature:
    """A function of the module: its name in the tree, and its parameters' names there, by name, in their order.

    The first `positional` of them may stand without a name, `required` have no default; `nested` functions may come to
    call themselves.
    """

    slot: str
    parameters: Mapping[str, str]
    positional: int
    required: tuple[str, ...]
    nested: bool = False


@dataclass(frozen=True)
class TranslatedModule:
    """`tree` refers to `slots` by their numbers; `names` gives every numbered name as the text has it.

    `imports` are the names of imported modules in the text, `modules` the modules themselves.
    """

    filename: str
    tree: ast.Module
    slots: tuple[Slot, ...]
    functions: Mapping[str, Signature]
    constants: Mapping[str, str]
    names: Mapping[str, str]
    imports: frozenset[str]
    modules: frozenset[str]


def check_flat(tree: ast.Module) -> None:
    """Raises ValueError for a tree with anything in it that the translator never makes."""
    todo: list[ast.AST] = [tree]
    for node in todo:
        if not isinstance(node, FLAT):
            raise ValueError(f"{type(node).__name__} in translated code")
        for field in node._fields:
            value = getattr(node, field, None)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, ast.AST):
                    todo.append(item)
                elif isinstance(item, str) and not NAME.fullmatch(item) and not _named_argument(node, item):
                    raise ValueError(f"{item[:20]!r} in translated code")
                elif not isinstance(item, str | int | None):
                    raise ValueError(f"{type(item).__name__} in translated code")


def _named_argument(node: ast.AST, name: str) -> bool:
    """Names of arguments are those of the table."""
    return isinstance(node, ast.keyword) and name in NAMED_ARGUMENTS
