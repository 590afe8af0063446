"""Imported experts become a library's: each under its skill's name and its number.

In: what the flowrl importer read, and names that it could not know. Out: skills with heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from policysmith.errors import PolicysmithError

if TYPE_CHECKING:
    from policysmith.importers.flowrl import ImportedExperts

__all__ = ["take_up"]


def take_up(imported: ImportedExperts, root: Path, names: Mapping[int, str]) -> list[str]:
    """Add every expert to the library in `root`, which is made if need be; returns a line for each.

    `names` go before those of the run. Raises `PolicysmithError` for experts without a name, before any is added.
    """
    from policysmith.skills import Expert, SkillLibrary
    from policysmith.skills.library.heads import now

    skills = {**imported.skills, **names}
    if unknown := [str(number) for number in names if number not in imported.experts]:
        there = ", ".join(map(str, imported.experts))
        raise PolicysmithError(f"--skill names experts that are not there: {', '.join(unknown)}; there are {there}")
    if missing := [str(number) for number in imported.experts if number not in skills]:
        hint = f" (the run depended on {', '.join(imported.dependencies)})" if imported.dependencies else ""
        raise PolicysmithError(f"nothing tells whose experts {', '.join(missing)} are: add --skill INDEX=NAME{hint}")
    library, lines = SkillLibrary(root), []
    for number, weights in sorted(imported.experts.items()):
        about = {"status": "imported", "created": now()}
        expert = Expert(skills[number], number, weights, frames=imported.frames.get(number, 0), about=about)
        lines.append(f"{number}  {skills[number]}  {library.add(expert)[:12]}")
    return lines
