"""A module written for the library's experts, rewritten for a run's: network numbers become local ones.

In: source with global indices, and the two maps. Out: source whose functions give local indices. The functions
themselves are rewritten: a header above them would be overridden by the definitions that follow it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from policysmith.errors import SkillError
from policysmith.skills.modules.module_file import NAME, SkillModule, parse_skill_module
from policysmith.skills.modules.process import Limits, SkillProcess
from policysmith.skills.modules.source_text import SourceText
from policysmith.skills.runs.remap import check_inverse

__all__ = ["inject_remapping"]

MAPS = ("GLOBAL_TO_LOCAL", "LOCAL_TO_GLOBAL")


def inject_remapping(
    source: str,
    global_to_local: Mapping[int, int],
    local_to_global: Mapping[int, int] | None = None,
    *,
    limits: Limits | None = None,
    execute: bool = True,
) -> str:
    """The module with local network numbers and both maps as constants; comments and all else stay as they are.

    The result is read again, and with `execute` run in a process of its own, under `limits`: it must give what the maps
    say. Raises `SkillError` for a module that is not in order, is remapped already, or uses an expert that is not in
    the map.
    """
    inverse = {local: expert for expert, local in global_to_local.items()}
    check_inverse(global_to_local, inverse if local_to_global is None else local_to_global)
    module = parse_skill_module(source)
    _check(module, global_to_local)
    text, tree = SourceText(source), ast.parse(source)
    for node in tree.body:
        match = NAME.fullmatch(node.name) if isinstance(node, ast.FunctionDef) else None
        if match is not None and match[2] == "network_number":
            number: Any = node.body[-1].value  # type: ignore[attr-defined]  # it returns a constant: that was checked
            text.replace(number, str(global_to_local[number.value]))
    maps = f"{MAPS[0]} = {dict(global_to_local)!r}\n{MAPS[1]} = {inverse!r}"
    text.insert_line(_first_line(tree), maps)
    rewritten = text.text()
    wanted = [global_to_local[task.network_number] for task in module.tasks]
    parsed = parse_skill_module(rewritten, filename=module.filename)
    _compare(module.filename, [task.network_number for task in parsed.tasks], wanted)
    if execute:
        _verify(parsed, wanted, [dict(global_to_local), inverse], limits)
    return rewritten


def _check(module: SkillModule, global_to_local: Mapping[int, int]) -> None:
    if taken := [name for name in MAPS if name in module.defines]:
        raise SkillError(f"{module.filename}: has {taken[0]} already: remap the module it was made from")
    wrong = {task.network_number: task.index for task in reversed(module.tasks)}
    wrong = {expert: task for expert, task in wrong.items() if expert not in global_to_local}
    if wrong:
        told = ", ".join(f"{expert} (task {task})" for expert, task in sorted(wrong.items()))
        known = ", ".join(map(str, sorted(global_to_local)))
        raise SkillError(f"{module.filename}: uses experts that the run does not hold: {told}; it holds {known}")


def _first_line(tree: ast.Module) -> int:
    """The line before which constants may stand: after docstring and imports."""
    line = tree.body[0].lineno
    for node in tree.body:
        if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr):
            return line
        line = (node.end_lineno or node.lineno) + 1
    return line


def _verify(parsed: SkillModule, wanted: list[int], maps: list[dict[int, int]], limits: Limits | None) -> None:
    """Run the result, elsewhere, and compare it with what was wanted."""
    with SkillProcess(parsed, limits) as process:
        _compare(parsed.filename, [process.network_number(task.index) for task in parsed.tasks], wanted)
        _compare(parsed.filename, [process.value(name) for name in MAPS], maps)


def _compare(filename: str, found: list[Any], wanted: list[Any]) -> None:
    if found != wanted:
        raise SkillError(f"{filename}: remapped, it gives {found}; expected {wanted}")
