"""Imported experts become a library's: each under its skill's name and its number.

In: experts by number, and their names. Out: skills with heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from policysmith.errors import PolicysmithError
from policysmith.skills import Expert, SkillLibrary
from policysmith.skills.library.head_history import now

__all__ = ["add_experts"]


def add_experts(
    root: Path,
    experts: Mapping[int, Mapping[str, Tensor]],
    skills: Mapping[int, str],
    named: Iterable[int],
    frames: Mapping[int, int],
    dependencies: Iterable[str],
) -> list[str]:
    """Add every expert to the library in `root`, which is made if need be; returns a line for each.

    `named` are the numbers that a user gave names. Raises `PolicysmithError` for experts without a name, before any is
    added.
    """
    if unknown := [str(number) for number in named if number not in experts]:
        there = ", ".join(map(str, experts))
        raise PolicysmithError(f"--skill names experts that are not there: {', '.join(unknown)}; there are {there}")
    if missing := [str(number) for number in experts if number not in skills]:
        names = ", ".join(dependencies)
        hint = f" (the run depended on {names})" if names else ""
        raise PolicysmithError(f"nothing tells whose experts {', '.join(missing)} are: add --skill INDEX=NAME{hint}")
    library, lines = SkillLibrary(root), []
    for number, weights in sorted(experts.items()):
        about = {"status": "imported", "created": now()}
        expert = Expert(skills[number], number, weights, frames=frames.get(number, 0), about=about)
        lines.append(f"{number}  {skills[number]}  {library.add(expert)[:12]}")
    return lines
