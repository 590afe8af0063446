"""The code files that a skills file names: read, and checked by their syntax trees alone.

In: a loaded skills file. Out: the texts by skill, and problems with the line of the code file where one is.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from pathlib import Path
from typing import Any

from policysmith.config.load import Document
from policysmith.errors import Problem, SkillError
from policysmith.skills.modules.generate import FUNCTIONS, PlanStep, generate_module
from policysmith.skills.modules.module_file import parse_skill_module
from policysmith.skills.modules.source_text import SourceText

__all__ = ["check_code"]


def check_code(document: Document, features: Collection[str] | None, problems: list[Problem]) -> dict[str, str]:
    """The code of every skill that has one; what is wrong with it is added to `problems`.

    `features` are what the environment offers to the functions, None where that is not known.
    """
    skills = document.data.get("skills")
    codes: dict[str, str] = {}
    named = skills.items() if isinstance(skills, dict) else ()
    for skill, said in named:
        code = said.get("code") if isinstance(said, dict) else None
        if isinstance(code, str) and code:
            text = _read(document, skill, document.directory / code, problems)
            if text is not None:
                codes[skill] = text
    before = len(problems)
    for skill, text in codes.items():
        problems += _code_problems(document, skill, text, features)
    if len(problems) == before and isinstance(skills, dict) and len(codes) == len(skills):
        for skill, said in named:
            problems += _plan_problems(document, skill, said.get("plan") or [skill], codes)
    return codes


def _read(document: Document, skill: str, file: Path, problems: list[Problem]) -> str | None:
    try:
        return file.read_bytes().decode("utf-8")
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
    except UnicodeDecodeError as error:
        message = f"{file} is not UTF-8: {error}; store it as UTF-8"
    problems.append(document.problem(("skills", skill, "code"), message))
    return None


def _code_problems(document: Document, skill: str, text: str, features: Collection[str] | None) -> list[Problem]:
    """What is wrong with one file: it is checked as the module of a single task, its lines where they are."""
    place, file = ("skills", skill, "code"), document.directory / document.data["skills"][skill]["code"]
    try:
        parse_skill_module(_as_module(text), features, str(file))
    except _Incomplete as error:
        return [document.problem(place, f"{file} {error}")]
    except SkillError as error:
        lines = [line.partition("  ") for line in str(error).splitlines()]
        return [
            Problem(f"skills.{skill}.code", _own_names(message), where) if message else document.problem(place, where)
            for where, _, message in lines
        ]
    return []


class _Incomplete(Exception):
    """A file lacks one of its two functions."""


def _as_module(text: str) -> str:
    """The file with its functions named as those of task 0; text that is not Python stays as it is."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if missing := [name for name in FUNCTIONS if name not in functions]:
        raise _Incomplete(f"defines no {' and no '.join(missing)}")
    changed = SourceText(text)
    for name, kind in FUNCTIONS.items():
        changed.replace_name(functions[name], f"task_0_{kind}")
    number = functions.get("task_network_number")
    if number is not None:  # the plan says which expert acts; a file may say so too
        changed.replace_name(number, "task_0_network_number")
        return changed.text()
    return changed.text() + "\n\ndef task_0_network_number():\n    return 0\n"


def _own_names(message: str) -> str:
    """A message in the words of the file."""
    for name, kind in FUNCTIONS.items():
        message = message.replace(f"task_0_{kind}", name)
    return message


def _plan_problems(document: Document, skill: str, plan: Any, codes: dict[str, str]) -> list[Problem]:
    """What only shows when the code of a plan's skills is put together; the names were checked before."""
    try:
        steps = [PlanStep(step) if isinstance(step, str) else PlanStep(**step) for step in plan]
        if any(step.skill not in codes for step in steps):
            return []
        generate_module(steps, codes, {name: index for index, name in enumerate(codes)})
    except SkillError as error:
        return [document.problem(("skills", skill, "plan"), line) for line in str(error).splitlines()]
    except TypeError:
        return []  # a step of another form: said already
    return []
