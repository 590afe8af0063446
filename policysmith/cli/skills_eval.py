"""`policysmith skills eval`: how well a trained skill does, from the beginning of its plan to the end."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from policysmith.cli.arguments import AsJson, Overrides
from policysmith.cli.output import chatter_to_stderr, facts, print_json

__all__ = ["evaluate"]


def evaluate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A skills file whose skills are trained.")],
    skill: Annotated[str, typer.Argument(metavar="SKILL", help="A skill of it; its whole plan is played.")],
    overrides: Overrides = None,
    library: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The library's folder, in place of the file's.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, metavar="N", help="How many plans to play.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Play a trained skill's plan with the experts that are heads now.

    Examples:
        policysmith skills eval skills.yaml Reach_Goal
        policysmith skills eval skills.yaml Reach_Goal --episodes 500 --json
    """
    with chatter_to_stderr():
        from policysmith.skills.scheduling.skills_file import read_skills_file
        from policysmith.skills.serving.judging import evaluate_skill

        found = evaluate_skill(read_skills_file(file, overrides or [], library=library), skill, episodes)
    if as_json:
        print_json(asdict(found))
        return
    facts({
        "skill": skill,
        "plans": f"{found.success_rate:.1%} of {found.episodes:,} done",
        "tasks": [f"{name}  {rate:.1%} of those begun" for name, rate in found.scores.items()],
    })  # fmt: skip
