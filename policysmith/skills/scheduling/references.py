"""The names by which skills of a file refer to one another: whether there is such a skill, and no circle.

In: a loaded skills file, which may be wrong in any way. Out: problems with their places.
"""

from __future__ import annotations

from typing import Any

from policysmith.config.load import Document
from policysmith.errors import Problem, did_you_mean
from policysmith.skills.scheduling.dag import one_cycle

__all__ = ["plan_names", "reference_problems"]


def reference_problems(document: Document) -> list[Problem]:
    """Names that no skill has, plans without their own skill, and circles."""
    skills = document.data.get("skills")
    if not isinstance(skills, dict):
        return []
    problems, needs = [], {}
    for skill, said in skills.items():
        said = said if isinstance(said, dict) else {}
        plan = plan_names(skill, said)
        others = [name for name in plan if name != skill]
        needs[skill] = [name for name in [*others, *_names(said.get("after"))] if name in skills]
        if skill not in plan:
            message = f"{skill!r} is not in its own plan: it would never act, and learn nothing"
            problems.append(document.problem(("skills", skill, "plan"), message))
        after, train = _names(said.get("after")), _names(said.get("train"))
        for option, names, known in (("plan", plan, skills), ("after", after, skills), ("train", train, others)):
            problems += [
                document.problem(("skills", skill, option, index), _stranger(option, name, known))
                for index, name in enumerate(names)
                if name not in known or (option == "after" and name == skill)
            ]
    if not problems and (cycle := one_cycle(needs)):
        message = f"these need each other in a circle: {' → '.join(cycle)}"
        problems.append(document.problem(("skills", cycle[0]), message, at_key=True))
    return problems


def _stranger(option: str, name: str, known: Any) -> str:
    if option == "train":
        return f"{name!r} is to learn too, but is no other skill of the plan{did_you_mean(name, known)}"
    if name in known:
        return f"{name!r} cannot come after itself"
    return f"there is no skill {name!r}{did_you_mean(name, known)}; every skill of a plan has an entry under skills"


def plan_names(skill: str, said: Any) -> list[str]:
    """The skills of a plan, as far as they can be read."""
    plan = said.get("plan") if isinstance(said, dict) else None
    steps = plan if isinstance(plan, list) and plan else [skill]
    found = [step.get("skill") if isinstance(step, dict) else step for step in steps]
    return [step for step in found if isinstance(step, str)]


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
