"""`policysmith skills train`: train the skills of a file, side by side where they do not need each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policysmith.cli.arguments import Overrides
from policysmith.cli.command import with_plugins
from policysmith.cli.output import chatter_to_stderr, command_line, count, duration, facts, shown_path

if TYPE_CHECKING:
    from policysmith.skills.scheduling.status import SkillsReport, SkillStatus

__all__ = ["train_skills"]


def train_skills(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A skills file: skills, their plans, and what trains them.")
    ],
    overrides: Overrides = None,
    library: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The library's folder, in place of the file's.")
    ] = None,
    parallel: Annotated[int | None, typer.Option(metavar="N", min=1, help="How many skills at a time.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="This skill and what it needs; repeatable.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing while skills are trained.")] = False,
) -> None:
    """Train the skills of a file that are not trained yet.

    Ctrl-C lets the workers save; the same command goes on, also after a kill. It ends with 0 if all are trained.

    Examples:
        policysmith skills train skills.yaml
        policysmith skills train skills.yaml --parallel 4 --only Open_Door
        policysmith skills train skills.yaml training.total_steps=1_000_000
    """
    with chatter_to_stderr():
        from policysmith.skills.modules.process import walls_here
        from policysmith.skills.scheduling import skills_session
        from policysmith.skills.scheduling.display import Display
        from policysmith.skills.scheduling.skills_file import read_skills_file
        from policysmith.skills.walls.walls import standing
        from policysmith.training.process.signals import graceful_stop

        read = read_skills_file(file, overrides or [], library=library)
        if not quiet:
            typer.echo("walls     " + "; ".join(standing(walls_here())), err=True)
        with graceful_stop() as stop:
            report = skills_session.train_skills(
                read, parallel=parallel, only=only, display=Display(enabled=not quiet), stop=stop
            )
    options = [("--library", library), ("--parallel", parallel), *(("--only", name) for name in only or ())]
    given = [word for option, value in options if value is not None for word in (option, str(value))]
    words = ["skills", "train", str(file), *given, *(overrides or [])]
    facts(_summary(report, shown_path(read.library)))
    if not report.succeeded:
        typer.echo()
        facts({"go on": command_line(with_plugins(ctx, words))})
        raise typer.Exit(1)


def _summary(report: SkillsReport, library: str) -> dict[str, Any]:
    """A line a skill, by what became of it."""
    from policysmith.skills.scheduling.status import Phase

    def lines(*phases: Phase) -> list[str]:
        return [_line(status) for status in report.skills.values() if status.phase in phases]

    unfinished = set(Phase) - {Phase.DONE, Phase.FAILED, Phase.BLOCKED}
    rows: dict[str, Any] = {
        "trained": lines(Phase.DONE),
        "failed": lines(Phase.FAILED),
        "blocked": lines(Phase.BLOCKED),
        "stopped": lines(*unfinished),
    }
    done = len(rows["trained"])
    return {
        **{label: found for label, found in rows.items() if found},
        "library": f"{library}: {done:,} of {count(len(report.skills), 'skill')} trained",
    }


def _line(status: SkillStatus) -> str:
    result, words = status.result, [status.name]
    if result:
        rate = "" if result.success_rate is None else f", success {result.success_rate:.0%}"
        ended = "; its budget was spent" if result.status == "budget" else ""
        words.append(f"{result.steps:,} steps in {duration(result.seconds)}{rate}{ended}")
    elif status.phase.value in ("failed", "blocked"):
        words.append(status.reason)
    return "  ".join(words)
