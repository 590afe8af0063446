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
from policysmith.skills.sandbox.functions import parameters_of
from policysmith.skills.sandbox.scope import Trouble
from policysmith.skills.sandbox.translate import parsed, raise_problems, translate

__all__ = ["SkillModule", "SkillTask", "parse_skill_module", "read_skill_module", "KINDS", "NAME"]

KINDS = ("is_done", "reward", "network_number")
NAME = re.compile(r"task_(0|[1-9][0-9]{0,5})_(is_done|reward|network_number)")
LOOKS_LIKE_A_TASK = re.compile(r"_*task_?\d", re.IGNORECASE)


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
    tree = parsed(source, filename)
    problems: list[Trouble] = []
    program = translate(tree, filename, problems)
    functions: dict[str, ast.FunctionDef] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            functions.setdefault(node.name, node)
    tasks = _tasks(functions, features, problems)
    raise_problems(filename, problems)
    defines = frozenset(program.functions) | frozenset(program.constants) | program.imports
    return SkillModule(source, tasks, program.modules, defines, filename)


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
    names = parameters_of(function)[1]
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
