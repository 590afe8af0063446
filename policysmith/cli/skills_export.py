"""`policysmith skills export`: a trained skill becomes an artifact, as any other policy is one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policysmith.cli.arguments import Overrides
from policysmith.cli.output import chatter_to_stderr, facts, shown_path
from policysmith.cli.runs import Output, run_place

__all__ = ["export"]


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A skills file whose skills are trained.")],
    skill: Annotated[str, typer.Argument(metavar="SKILL", help="A skill of it; the experts of its plan are taken.")],
    overrides: Overrides = None,
    output: Output = None,
    library: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The library's folder, in place of the file's.")
    ] = None,
) -> None:
    """Store the experts of a skill's plan as one policy, whose observations are {observation, task}.

    Examples:
        policysmith skills export skills.yaml Reach_Goal
        policysmith skills export skills.yaml Reach_Goal --output policies/goal
    """
    with chatter_to_stderr():
        from policysmith.skills.runs.folder_names import folder_name
        from policysmith.skills.scheduling.skills_file import read_skills_file
        from policysmith.skills.serving.exporting import policy_of, trained_plan
        from policysmith.store import save

        read = read_skills_file(file, overrides or [], library=library)
        policy = policy_of(read, skill)
        place = save(policy, run_place(folder_name(skill), output, None) or "")
        completed, _ = trained_plan(read, skill)
    numbers = {name: completed[name]["expert_idx"] for name in read.plans[skill]}
    tasks = {number: task for task, number in enumerate(policy.config["model"]["experts"])}
    plan = [f"{name}  task {tasks[number]}, expert {number}" for name, number in numbers.items()]
    facts({"artifact": shown_path(place), "plan": plan})
