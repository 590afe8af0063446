"""From a module's text to a `TranslatedModule`: what is not translated is refused, all of it at once, with lines.

In: Python source that somebody, or a language model, wrote. Out: the syntax tree, and a program over the closed table.
Nothing is compiled, executed or imported here.
"""

from __future__ import annotations

import ast
import contextlib
import graphlib
from collections import Counter
from collections.abc import Mapping

from policysmith.errors import SkillError
from policysmith.skills.sandbox.functions import ENTRY, Functions, parameters_of
from policysmith.skills.sandbox.scope import Module, Scope, Trouble, joined
from policysmith.skills.sandbox.syntax_nodes import nodes_below
from policysmith.skills.sandbox.translated_module import Signature, TranslatedModule
from policysmith.skills.sandbox.vocabulary import BUILTINS, MODULES

__all__ = ["parsed", "raise_problems", "translate", "translated"]

LONGEST = 500_000  # characters
DEEPEST = 100  # levels of the syntax tree, far below where Python's own parser and compiler give up
CALLS = 10_000  # that one call may come to without loops, before they are counted
ROUNDS = 5  # until what functions hand to each other is settled; then nothing is assumed


def translated(source: str, filename: str = "<skill>") -> TranslatedModule:
    """The program of a module's text. Raises `SkillError` with every problem."""
    problems: list[Trouble] = []
    program = translate(parsed(source, filename), filename, problems, sharp=True)
    raise_problems(filename, problems)
    return program


def raise_problems(filename: str, problems: list[Trouble]) -> None:
    """Raises `SkillError` if there are any, one a line: `file:line  what is wrong`."""
    if problems:
        raise SkillError("\n".join(f"{filename}:{line}  {text}" for line, text in sorted(set(problems))))


def parsed(source: str, filename: str) -> ast.Module:
    """The syntax tree. Raises `SkillError` for text that is not Python, too long or too deep."""
    if len(source) > LONGEST:
        raise SkillError(f"{filename}: has {len(source):,} characters; a skill's module has at most {LONGEST:,}")
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise SkillError(f"{filename}:{error.lineno or 1}  is not Python: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise SkillError(f"{filename}: cannot be parsed: {error or type(error).__name__}") from None
    level: list[ast.AST] = [tree]
    for _ in range(DEEPEST):
        level = [child for node in level for child in nodes_below(node)]
        if not level:
            return tree
    line = next((node.lineno for node in level if isinstance(node, ast.expr | ast.stmt)), 1)
    raise SkillError(f"{filename}:{line}  expressions are nested more than {DEEPEST} levels deep; split them up")


def translate(tree: ast.Module, filename: str, problems: list[Trouble], *, sharp: bool = False) -> TranslatedModule:
    """The program of a syntax tree; with problems it is not to be run.

    A `sharp` one takes longer to make and less long to run.
    """
    imports: dict[str, str] = {}
    module = Module(imports)
    maker = Functions(module, problems)
    functions: dict[str, ast.FunctionDef] = {}
    statements: list[ast.stmt] = []
    maker.read_whole(tree, tree)
    for index, node in enumerate(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            maker.read_whole(node, node)
            imports.update(_imports(node, problems))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            statements += _constant(node, maker)
        elif isinstance(node, ast.Expr) and index == 0 and isinstance(node.value, ast.Constant):
            continue
        elif not isinstance(node, ast.FunctionDef):
            what = type(node).__name__.lower()
            problems.append((node.lineno, f"a module has imports, constants and functions; {what} is not allowed"))
        elif node.name in functions:
            problems.append((node.lineno, f"{node.name} is defined twice; the later would silently win"))
        else:
            functions[node.name] = node
    return _with_functions(functions, statements, filename, maker, sharp)


def _with_functions(
    functions: Mapping[str, ast.FunctionDef], statements: list[ast.stmt], filename: str, maker: Functions, sharp: bool
) -> TranslatedModule:
    module = maker.module
    for name, node in functions.items():
        if name in BUILTINS or name in module.imports or name in module.constants or name.startswith("__"):
            maker.refused(node, f"{name!r} is the name of something else; choose another")
    calls = {name: _calls(node, functions) for name, node in functions.items()}
    module.called = frozenset(name for called in calls.values() for name in called)
    counts = _counts(calls)
    nested = set(functions) - set(counts)
    module.busy = bool(nested) or max(counts.values(), default=0) > CALLS
    module.functions = {name: _signature(node, module, name in nested) for name, node in functions.items()}
    for node in functions.values():
        maker.check_signature(node)
    made = _settled(functions, maker) if sharp else _made(functions, maker)
    tree = ast.fix_missing_locations(ast.Module([*statements, *made], []))
    slots = tuple(key[:-2] for key in module.slots)
    imports = frozenset(module.imports), frozenset(module.imports.values())
    return TranslatedModule(filename, tree, slots, module.functions, module.constants, module.names, *imports)


def _settled(functions: Mapping[str, ast.FunctionDef], maker: Functions) -> list[ast.stmt]:
    """The functions, when what they hand to each other is known; it only ever grows, from least to most."""
    flow = maker.module.flow
    flow.vague = False
    for _ in range(ROUNDS):
        flow.seen = {}
        made = _made(functions, maker)
        if all(joined([flow.kind(name), kind]) == flow.kind(name) for name, kind in flow.seen.items()):
            return made
        flow.assumed = {name: joined([flow.assumed.get(name, kind), kind]) for name, kind in flow.seen.items()}
    flow.vague = True
    return _made(functions, maker)


def _made(functions: Mapping[str, ast.FunctionDef], maker: Functions) -> list[ast.stmt]:
    module = maker.module
    entries = {name for name in functions if ENTRY.fullmatch(name)} - module.called
    return [maker.function(node, module.functions[name], data=name in entries) for name, node in functions.items()]


def _signature(node: ast.FunctionDef, module: Module, nested: bool) -> Signature:
    names, required = parameters_of(node)
    slots = {name: module.fresh("v", name) for name in names}
    positional = len(names) - len(node.args.kwonlyargs)
    return Signature(module.fresh("f", node.name), slots, positional, tuple(required), nested)


def _constant(node: ast.Assign | ast.AnnAssign, maker: Functions) -> list[ast.stmt]:
    """NAME = value."""
    module = maker.module
    maker.read_whole(node, node)
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if isinstance(node, ast.AnnAssign):
        maker.annotation(node.annotation)
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    if node.value is None or len(names) < len(targets):
        maker.refused(node, "a constant is written NAME = value")
        return []
    value = maker.value(node.value, Scope(module, "a constant"))
    made: list[ast.expr] = []
    for name in names:
        if name in BUILTINS or name in module.imports or name in module.constants or name.startswith("__"):
            maker.refused(node, f"{name!r} is the name of something else; choose another")
        numbered = module.constants[name] = module.fresh("g", name)
        module.kinds[numbered] = value.kind
        made.append(ast.copy_location(ast.Name(numbered, ast.Store()), node))
    return [ast.copy_location(ast.Assign(made, value.tree), node)]


def _imports(node: ast.Import | ast.ImportFrom, problems: list[Trouble]) -> dict[str, str]:
    """alias → module."""
    if isinstance(node, ast.ImportFrom):
        if node.module == "__future__" and [alias.name for alias in node.names] == ["annotations"]:
            return {}
        if node.module == "jax" and [alias.name for alias in node.names] == ["numpy"] and not node.level:
            return {node.names[0].asname or "numpy": "jax.numpy"}
        problems.append(
            (node.lineno, f"write 'import {node.module or '…'}' and call its functions by their full names")
        )
        return {}
    found = {}
    for alias in node.names:
        name = alias.asname or alias.name
        if alias.name not in MODULES:
            allowed = ", ".join(sorted(MODULES))
            problems.append((node.lineno, f"importing {alias.name!r} is not allowed; a skill may import {allowed}"))
        elif "." in name:
            problems.append((node.lineno, f"give {alias.name} a short name: import {alias.name} as jnp"))
        elif name in BUILTINS or name.startswith("_"):
            problems.append((node.lineno, f"{name!r} can't be the name of a module"))
        else:
            found[name] = alias.name
    return found


def _calls(node: ast.FunctionDef, functions: Mapping[str, ast.FunctionDef]) -> Counter[str]:
    """How often a function's text calls each other function."""
    named = (n.func for n in ast.walk(node) if isinstance(n, ast.Call))
    return Counter(f.id for f in named if isinstance(f, ast.Name) and f.id in functions)


def _counts(calls: Mapping[str, Counter[str]]) -> dict[str, int]:
    """How many calls one call comes to, loops aside; functions that may come to call themselves are left out."""
    order = graphlib.TopologicalSorter(calls)
    with contextlib.suppress(graphlib.CycleError):  # it goes as far as it can
        order.prepare()
    counts: dict[str, int] = {}
    while ready := order.get_ready():
        for name in ready:
            count = sum(times * (1 + counts[other]) for other, times in calls[name].items())
            counts[name] = min(count, CALLS + 1)
        order.done(*ready)
    return counts
