"""A skill's module made from a plan: which skills act one after another, and each one's own two functions.

In: steps, each a skill and how often, and every skill's code (`task_is_done`, `task_reward`, helpers). Out: a module
with a task for each step, its network numbers global.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from policysmith.errors import SkillError, did_you_mean
from policysmith.skills.modules.module_file import SkillModule, parse_skill_module
from policysmith.skills.modules.source_text import SourceText
from policysmith.skills.runs.folder_names import folder_name

__all__ = ["PlanStep", "generate_module", "generated_module", "FUNCTIONS"]

FUNCTIONS = {"task_is_done": "is_done", "task_reward": "reward"}
COUNT = "n"


@dataclass(frozen=True)
class PlanStep:
    """One step of a plan: a skill, and how many of what it makes are wanted (the default of its argument `n`)."""

    skill: str
    count: int | None = None


def generate_module(plan: Sequence[PlanStep], codes: Mapping[str, str], experts: Mapping[str, int]) -> str:
    """The module of a plan. `codes` and `experts` give each skill's code and global expert by the skill's name.

    Helpers and constants of different skills may have the same name: they are told apart. Raises `SkillError`.
    """
    return generated_module(plan, codes, experts).source


def generated_module(
    plan: Sequence[PlanStep],
    codes: Mapping[str, str],
    experts: Mapping[str, int],
    features: Collection[str] | None = None,
) -> SkillModule:
    """`generate_module`, checked as `parse_skill_module` does, which knows the environment's `features` or does not."""
    if not plan:
        raise SkillError("the plan has no step: there is nothing to train")
    for step in plan:
        for what, known in (("code", codes), ("expert", experts)):
            if step.skill not in known:
                raise SkillError(f"the plan has the skill {step.skill!r}, of which no {what} is known"
                                 f"{did_you_mean(step.skill, known)}")  # fmt: skip
    codes_used = {step.skill: _Code(step.skill, codes[step.skill]) for step in plan}
    imports = _imports(list(codes_used.values()))
    _tell_apart(list(codes_used.values()))
    parts = [part for code in codes_used.values() for part in code.helpers()]
    for index, step in enumerate(plan):
        parts += codes_used[step.skill].task(index, step.count)
        parts.append(
            f"def task_{index}_network_number():\n    return {experts[step.skill]}  # {folder_name(step.skill)}"
        )
    source = "\n\n\n".join(["\n".join(imports)] * bool(imports) + parts) + "\n"
    return parse_skill_module(source, features, f"module of {plan[-1].skill!r}")


class _Code:
    """One skill's code, and how its names are changed in the module."""

    def __init__(self, skill: str, source: str) -> None:
        self.skill, self.source = skill, source
        try:
            self.tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise SkillError(f"the code of {skill!r} is not Python: {error}") from None
        self.renamed: dict[str, str] = {}
        found = {node.name: node for node in self.tree.body if isinstance(node, ast.FunctionDef)}
        if missing := [name for name in FUNCTIONS if name not in found]:
            raise SkillError(f"the code of {skill!r} has no {' and no '.join(missing)}")
        self._check_statements()
        self.functions = found
        self.own = [node for node in self.tree.body if _names_of(node) and not _is_task(node)]

    def _check_statements(self) -> None:
        """Refuse what would not be taken over into the module."""
        for index, node in enumerate(self.tree.body):
            docstring = index == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            known = docstring or isinstance(node, ast.Import | ast.ImportFrom) or _names_of(node)
            if not known or getattr(node, "decorator_list", None):
                what = "a decorator" if known else type(node).__name__.lower()
                where = f"line {node.lineno} of the code of {self.skill!r}"
                raise SkillError(f"{where}: it has imports, constants and functions; {what} is not allowed")

    def local_names(self) -> set[str]:
        """Names that mean something else within a function."""
        nodes = [node for function in self.functions.values() for node in ast.walk(function)]
        stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        return stored | {n.arg for n in nodes if isinstance(n, ast.arg)}

    def helpers(self) -> list[str]:
        """Constants and helper functions as they go into the module."""
        text = self._text() if self.own else SourceText("")
        for node in self.own:
            if isinstance(node, ast.FunctionDef) and node.name in self.renamed:
                text.replace_name(node, self.renamed[node.name])
        return [text.lines(node.lineno, node.end_lineno or node.lineno) for node in self.own]

    def task(self, index: int, count: int | None) -> list[str]:
        """The two functions under their names in the module."""
        text, parts = self._text(), []
        for name, kind in FUNCTIONS.items():
            text.replace_name(self.functions[name], f"task_{index}_{kind}")
        if count is not None:
            self._set_count(text, count)
        for name in FUNCTIONS:
            node = self.functions[name]
            parts.append(text.lines(node.lineno, node.end_lineno or node.lineno))
        return parts

    def _set_count(self, text: SourceText, count: int) -> None:
        """Make `count` the default of `n`, however its signature is written."""
        if type(count) is not int or count < 1:
            raise SkillError(f"the count of {self.skill!r} must be a whole number ≥ 1, found {count!r}")
        arguments = self.functions["task_is_done"].args
        plain = [None] * (len(arguments.args) - len(arguments.defaults))
        pairs = [
            *zip(arguments.args, [*plain, *arguments.defaults], strict=True),
            *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
        ]
        found = [(argument, default) for argument, default in pairs if argument.arg == COUNT]
        if not found:
            raise SkillError(
                f"the plan wants {count} of {self.skill!r}, but its task_is_done has no argument {COUNT!r}"
            )
        argument, default = found[0]
        if default is not None:
            text.replace(default, str(count))
        elif argument in (*arguments.args[-1:], *arguments.kwonlyargs):
            text.insert_after(argument, f" = {count}" if argument.annotation else f"={count}")
        else:
            raise SkillError(
                f"the argument {COUNT!r} of {self.skill!r}'s task_is_done must come last, or have a default"
            )

    def _text(self) -> SourceText:
        text = SourceText(self.source)
        for node in ast.walk(self.tree) if self.renamed else ():
            if isinstance(node, ast.Name) and node.id in self.renamed:
                text.replace(node, self.renamed[node.id])
        return text


def _imports(codes: Sequence[_Code]) -> list[str]:
    """Every import once; an alias means one module."""
    lines: dict[str, None] = {}
    meaning: dict[str, tuple[str, str]] = {}
    for code in codes:
        for node in code.tree.body:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            lines[ast.unparse(node)] = None
            for alias in node.names:
                name, module = alias.asname or alias.name, f"{getattr(node, 'module', '')}.{alias.name}"
                other = meaning.setdefault(name, (module, code.skill))
                if other[0] != module:
                    raise SkillError(f"{name!r} is one module in {other[1]!r} and another in {code.skill!r}: rename it")
    return sorted(lines, key=lambda line: not line.startswith("from __future__"))


def _tell_apart(codes: Sequence[_Code]) -> None:
    """Give names that several skills define their skill's name as well."""
    owners: dict[str, list[_Code]] = {}
    for code in codes:
        for name in dict.fromkeys(name for node in code.own for name in _names_of(node)):
            owners.setdefault(name, []).append(code)
    taken = set(owners)
    for name, sharing in owners.items():
        for code in sharing if len(sharing) > 1 else ():
            if name in code.local_names():
                raise SkillError(f"{name!r} of {code.skill!r} is a local name as well, and another skill's: rename it")
            fresh = stem = f"{name}_of_{folder_name(code.skill)}"
            number = 2
            while fresh in taken:
                fresh, number = f"{stem}_{number}", number + 1
            taken.add(fresh)
            code.renamed[name] = fresh


def _is_task(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name in (*FUNCTIONS, "task_network_number")


def _names_of(node: ast.stmt) -> list[str]:
    """What a statement of a module defines, but for imports."""
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
