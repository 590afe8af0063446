"""A skill's module: for each task of its plan `task_<i>_is_done`, `task_<i>_reward` and `task_<i>_network_number`.

In: Python source that somebody, or a language model, wrote. Out: what it says, read from its syntax tree alone: the
code is never imported or run here. Everything wrong with it is told at once, with lines.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from policysmith.errors import SkillError, did_you_mean
from policysmith.skills.modules.code_check import Names, Trouble, check_expression, check_function, nodes_below
from policysmith.skills.modules.vocabulary import BUILTINS, MODULES

__all__ = ["SkillModule", "SkillTask", "parse_skill_module", "read_skill_module"]

KINDS = ("is_done", "reward", "network_number")
NAME = re.compile(r"task_(0|[1-9][0-9]{0,5})_(is_done|reward|network_number)")
LOOKS_LIKE_A_TASK = re.compile(r"_*task_?\d", re.IGNORECASE)
LONGEST = 500_000  # characters
DEEPEST = 100  # levels of the syntax tree, far below where Python's own parser and compiler give up


@dataclass(frozen=True)
class SkillTask:
    """One task of the plan: which expert acts in it, and what its functions read (parameters without a default)."""

    index: int
    network_number: int
    is_done: tuple[str, ...]
    reward: tuple[str, ...]


@dataclass(frozen=True)
class SkillModule:
    """A checked module. `tasks` are in order; `modules` are those it imports; `defines` are its names."""

    source: str
    tasks: tuple[SkillTask, ...]
    modules: frozenset[str]
    defines: frozenset[str]
    filename: str = "<skill>"

    @property
    def features(self) -> frozenset[str]:
        """Every state feature that a function reads."""
        return frozenset(name for task in self.tasks for name in (*task.is_done, *task.reward))


def read_skill_module(path: str | Path, features: Collection[str] | None = None) -> SkillModule:
    """`parse_skill_module` of a file. Raises `SkillError`, also for a file that can't be read."""
    try:
        source = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise SkillError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SkillError(f"{path}: is not UTF-8: {error}; store it as UTF-8") from None
    return parse_skill_module(source, features, str(path))


def parse_skill_module(source: str, features: Collection[str] | None = None, filename: str = "<skill>") -> SkillModule:
    """Check a module's source; `features` are the state features that the environment offers, if that is known.

    Raises `SkillError` with every problem, one a line: `file:line  what is wrong`.
    """
    tree = _tree(source, filename)
    problems: list[Trouble] = []
    names = _names(tree, problems)
    functions: dict[str, ast.FunctionDef] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            if node.name in functions:
                problems.append((node.lineno, f"{node.name} is defined twice; the later would silently win"))
            functions.setdefault(node.name, node)
            problems += check_function(node, names)
    tasks = _tasks(functions, features, problems)
    if problems:
        lines = [f"{filename}:{line}  {text}" for line, text in sorted(set(problems))]
        raise SkillError("\n".join(lines))
    defines = names.functions | names.constants | frozenset(names.imports)
    return SkillModule(source, tasks, frozenset(names.imports.values()), defines, filename)


def _tree(source: str, filename: str) -> ast.Module:
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


def _names(tree: ast.Module, problems: list[Trouble]) -> Names:
    """What the module's own statements define, checked in order: imports, constants, functions and a docstring."""
    functions = frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    names = Names({}, frozenset(), frozenset())
    for index, node in enumerate(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = Names({**names.imports, **_imports(node, problems)}, names.functions, names.constants)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names = Names(names.imports, names.functions, names.constants | _constant(node, names, problems))
        elif isinstance(node, ast.Expr) and index == 0 and isinstance(node.value, ast.Constant):
            continue
        elif not isinstance(node, ast.FunctionDef):
            what = type(node).__name__.lower()
            problems.append((node.lineno, f"a module has imports, constants and functions; {what} is not allowed"))
    for name in sorted(functions):
        if name in BUILTINS or name in names.imports or name in names.constants or name.startswith("__"):
            line = next(n.lineno for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
            problems.append((line, f"{name!r} is the name of something else; choose another"))
    return Names(names.imports, functions, names.constants)


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


def _constant(node: ast.Assign | ast.AnnAssign, names: Names, problems: list[Trouble]) -> frozenset[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if node.value is None or not all(isinstance(target, ast.Name) for target in targets):
        problems.append((node.lineno, "a constant is written NAME = value"))
        return frozenset()
    stored = frozenset(target.id for target in targets if isinstance(target, ast.Name))
    for name in sorted(stored):
        if name in BUILTINS or name in names.imports or name in names.constants or name.startswith("__"):
            problems.append((node.lineno, f"{name!r} is the name of something else; choose another"))
    problems += check_expression(node.value, names)
    return stored


def _tasks(
    functions: dict[str, ast.FunctionDef], features: Collection[str] | None, problems: list[Trouble]
) -> tuple[SkillTask, ...]:
    found: dict[int, dict[str, ast.FunctionDef]] = {}
    for name, function in functions.items():
        match = NAME.fullmatch(name)
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = function
        elif LOOKS_LIKE_A_TASK.match(name):
            hint = did_you_mean(name, [f"task_{i}_{kind}" for i in range(len(functions)) for kind in KINDS])
            problems.append((function.lineno, f"{name!r} is no function of a task{hint}; kinds: {', '.join(KINDS)}"))
    problems += _gaps(found)
    tasks = []
    for index, triple in sorted(found.items()):
        number = _network_number(triple.get("network_number"), problems)
        read = [tuple(_reads(triple.get(kind), features, problems)) for kind in ("is_done", "reward")]
        tasks.append(SkillTask(index, number, *read))
    return tuple(tasks)


def _gaps(found: dict[int, dict[str, ast.FunctionDef]]) -> Iterator[Trouble]:
    if not found:
        yield 1, "there is no task: define task_0_is_done, task_0_reward and task_0_network_number"
        return
    for index, triple in sorted(found.items()):
        missing = [f"task_{index}_{kind}" for kind in KINDS if kind not in triple]
        if missing:
            yield min(f.lineno for f in triple.values()), f"task {index} is incomplete: {', '.join(missing)} is missing"
    for index, wanted in zip(sorted(found), range(len(found)), strict=True):
        if index != wanted:
            line = min(f.lineno for f in found[index].values())
            yield line, f"tasks are numbered from 0 without gaps: found task {index} where task {wanted} should be"
            return


def _network_number(function: ast.FunctionDef | None, problems: list[Trouble]) -> int:
    """The constant that `task_<i>_network_number` returns."""
    if function is None:
        return 0
    *before, last = function.body
    docstring = not before or (len(before) == 1 and _is_text(before[0]))
    value = last.value if isinstance(last, ast.Return) else None
    number = value.value if isinstance(value, ast.Constant) else None
    if _arguments(function) or not docstring or type(number) is not int or number < 0:
        problems.append(
            (function.lineno, f"{function.name} must take nothing and return one whole number ≥ 0, written out")
        )
        return 0
    return number


def _reads(
    function: ast.FunctionDef | None, features: Collection[str] | None, problems: list[Trouble]
) -> Sequence[str]:
    """The parameters that the environment must supply: those without a default."""
    if function is None:
        return ()
    arguments = function.args
    plain = arguments.args[: len(arguments.args) - len(arguments.defaults)]
    named = [arg for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None]
    names = [arg.arg for arg in (*plain, *named)]
    for name in names if features is not None else ():
        if name not in (features or ()):
            offered = ", ".join(sorted(features or ()))
            hint = did_you_mean(name, features or ())
            problems.append(
                (function.lineno, f"{function.name} reads {name!r}{hint}; the environment offers {offered}")
            )
    return names


def _arguments(function: ast.FunctionDef) -> bool:
    arguments = function.args
    return bool(arguments.posonlyargs or arguments.args or arguments.kwonlyargs or arguments.vararg or arguments.kwarg)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
