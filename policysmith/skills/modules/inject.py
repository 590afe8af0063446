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
    source: str | SkillModule,
    global_to_local: Mapping[int, int],
    local_to_global: Mapping[int, int] | None = None,
    *,
    limits: Limits | None = None,
    execute: bool = True,
) -> str:
    """The module with local network numbers and both maps as constants; comments and all else stay as they are.

    `source` is its text, or the module if it has been parsed. The result is read again, and with `execute` checked
    again and run in a process of its own, under `limits`: it must give what the maps say. Raises `SkillError` for a
    module that is not in order, is remapped already, or uses an expert that is not in the map.
    """
    inverse = {local: expert for expert, local in global_to_local.items()}
    check_inverse(global_to_local, inverse if local_to_global is None else local_to_global)
    module = source if isinstance(source, SkillModule) else parse_skill_module(source)
    _check(module, global_to_local)
    text, tree = SourceText(module.source), ast.parse(module.source)
    for number in _numbers(tree).values():
        text.replace(number, str(global_to_local[number.value]))
    maps = f"{MAPS[0]} = {dict(global_to_local)!r}\n{MAPS[1]} = {inverse!r}"
    text.insert_line(_first_line(tree), maps)
    rewritten = text.text()
    wanted = [global_to_local[task.network_number] for task in module.tasks]
    expected = [dict(global_to_local), inverse]
    _read_again(rewritten, module.filename, wanted, expected)
    if execute:
        _verify(parse_skill_module(rewritten, filename=module.filename), wanted, expected, limits)
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


def _numbers(tree: ast.Module) -> dict[int, Any]:
    """By task, the constant that its `network_number` returns; that it does was checked."""
    named = ((NAME.fullmatch(node.name), node) for node in tree.body if isinstance(node, ast.FunctionDef))
    found = {int(match[1]): node for match, node in named if match is not None and match[2] == "network_number"}
    return {task: node.body[-1].value for task, node in sorted(found.items())}  # type: ignore[attr-defined]


def _read_again(rewritten: str, filename: str, wanted: list[int], maps: list[dict[int, int]]) -> None:
    """Compare what the text says now with what was wanted; the rest of it is what it was, and was checked then."""
    try:
        tree = ast.parse(rewritten)
        _compare(filename, [number.value for number in _numbers(tree).values()], wanted)
        constants = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
        _compare(filename, [ast.literal_eval(constants[name]) for name in MAPS], maps)
    except (SyntaxError, AttributeError, LookupError, ValueError) as error:
        raise SkillError(f"{filename}: could not be remapped: {error!r}") from None


def _verify(parsed: SkillModule, wanted: list[int], maps: list[dict[int, int]], limits: Limits | None) -> None:
    """Run the result, elsewhere, and compare it with what was wanted."""
    with SkillProcess(parsed, limits) as process:
        _compare(parsed.filename, [process.network_number(task.index) for task in parsed.tasks], wanted)
        _compare(parsed.filename, [process.value(name) for name in MAPS], maps)


def _compare(filename: str, found: list[Any], wanted: list[Any]) -> None:
    if found != wanted:
        raise SkillError(f"{filename}: remapped, it gives {found}; expected {wanted}")
