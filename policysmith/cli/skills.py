"""`policysmith skills …`: what is in a library of skills, and looking after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from policysmith.cli.arguments import AsJson
from policysmith.cli.command import command
from policysmith.cli.help import Command, Group
from policysmith.cli.output import chatter_to_stderr, count, facts, print_json, print_rich, shown_path, write_file
from policysmith.cli.skills_eval import evaluate
from policysmith.cli.skills_export import export
from policysmith.cli.skills_train import train_skills
from policysmith.errors import PolicysmithError

if TYPE_CHECKING:
    from policysmith.skills import SkillLibrary
    from policysmith.skills.library.index import SkillRecord, VersionRecord

__all__ = ["skills"]

DEFAULT = Path("library")
NUMBERS = ("expert", "frames", "score", "versions")
Library = Annotated[
    Path, typer.Option("--library", metavar="DIR", help="The folder of the library; 'library' by default.")
]
Skill = Annotated[str, typer.Argument(metavar="SKILL", help="A skill's name.")]
Version = Annotated[
    str, typer.Argument(metavar="SKILL[@VERSION]", help="A skill's head, or a version: its hash's beginning, a branch.")
]

skills = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None)


@skills.callback()
def describe_skills() -> None:
    """Look into a library of skills, and after it.

    Every run makes versions of the experts that it trained; a skill's head is the version that runs start from.

    Examples:
        policysmith skills ls
        policysmith skills history Reach_Goal
        policysmith skills rollback Reach_Goal
    """


def list_skills(library: Library = DEFAULT, as_json: AsJson = False) -> None:
    """List the skills of a library.

    Examples:
        policysmith skills ls
        policysmith skills ls --library runs/library --json
    """
    with chatter_to_stderr():
        found = _open(library).skills()
    if as_json:
        print_json({"skills": [skill.describe() for skill in found]})
        return
    if found:
        print_rich(_skills_table(found), wrap=True)
    typer.echo(count(len(found), "skill"))


def show(skill: Version, library: Library = DEFAULT, as_json: AsJson = False) -> None:
    """Show what is known of a skill's head, or of another version.

    Examples:
        policysmith skills show Reach_Goal
        policysmith skills show Reach_Goal@3fa94c1b --json
    """
    with chatter_to_stderr():
        place = _open(library)
        record = place.version(skill)
        dependencies = place.skill(record.skill).dependencies
        folder = place.folder_of(record.skill)
    if as_json:
        print_json({**record.describe(), "dependencies": list(dependencies), "folder": str(folder)})
        return
    rows: dict[str, str | Sequence[str]] = {
        "skill": f"{record.skill}  expert {record.expert}",
        "version": f"{record.version}{'  (head)' if record.is_head else ''}",
        "made": f"{_time(record.created)}{f' by {record.run}' if record.run else ''}: {record.status}",
        "frames": f"{record.frames:,}",
        "scores": [f"{name} {score:.4g}" for name, score in record.scores.items()],
        "parents": [parent[:12] for parent in record.parents],
        "with": [f"{name} {version[:12]}" for name, version in record.trained_with.items()],
        "branches": ", ".join(record.branches),
        "needs": ", ".join(dependencies),
        "folder": shown_path(folder),
    }
    facts({label: value for label, value in rows.items() if value})


def history(skill: Skill, library: Library = DEFAULT, as_json: AsJson = False) -> None:
    """List the versions of a skill's expert, and every version that has been its head.

    Examples:
        policysmith skills history Reach_Goal
    """
    with chatter_to_stderr():
        place = _open(library)
        records, moves = place.versions(skill), place.history(skill)
    if as_json:
        heads = [{"version": m.version, "created": m.created, "reason": m.reason, "run": m.run} for m in moves]
        print_json({"versions": [record.describe() for record in records], "heads": heads})
        return
    if records:
        print_rich(_versions_table(records), wrap=True)
    typer.echo(count(len(records), "version"))
    facts({"heads": [f"{_time(move.created)}  {move.version[:12]}  {move.reason}" for move in moves]} if moves else {})


def graph(
    skill: Annotated[
        str | None, typer.Argument(metavar="SKILL", help="The lineage of one skill's versions instead.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a diagram in Mermaid's language instead (.mmd, .md).")
    ] = None,
    library: Library = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show which skills need which; of one skill, which of its versions comes from which.

    Examples:
        policysmith skills graph
        policysmith skills graph Reach_Goal
        policysmith skills graph --output skills.mmd
    """
    from policysmith.cli.skills_graph import lineage, needs

    with chatter_to_stderr():
        place = _open(library)
        picture = needs(place.skills()) if skill is None else lineage(skill, place.versions(skill))
    if as_json:
        print_json(picture.describe())
    elif output is None:
        print_rich(picture.tree())
    elif output.suffix not in (".mmd", ".md"):
        raise PolicysmithError(f"{output}: a graph of skills is written as .mmd or .md, in Mermaid's language")
    else:
        write_file(output, picture.mermaid(fenced=output.suffix == ".md"))
        facts({"written": shown_path(output)})


def merge(first: Version, second: Version, library: Library = DEFAULT) -> None:
    """Make the mean of two versions of one expert its head.

    Examples:
        policysmith skills merge Wood Wood@skill_7_Fire-3fa94c1b
    """
    with chatter_to_stderr():
        place = _open(library)
        version = place.merge(first, second)
        record = place.version(f"{place.version(first).skill}@{version}")
    facts({"head": f"{record.skill}  {record.short}  {record.frames:,} frames"})


def prune(
    skill: Annotated[str | None, typer.Argument(metavar="SKILL", help="One skill; by default all of them.")] = None,
    older_than: Annotated[float, typer.Option(metavar="DAYS", min=0, help="Spare what is younger.")] = 7.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    library: Library = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Remove old versions that are no head, no branch and no parent of one.

    Examples:
        policysmith skills prune --dry-run
        policysmith skills prune Reach_Goal --older-than 30
    """
    with chatter_to_stderr():
        place = _open(library)
        names = [skill] if skill is not None else [record.name for record in place.skills()]
        found = [r for name in names for r in place.prune(name, older_than=older_than, dry_run=dry_run)]
    if as_json:
        print_json({"versions": [record.describe() for record in found], "removed": not dry_run})
        return
    lines = [f"{record.short}  {record.skill}" for record in found]
    facts({"would go" if dry_run else "removed": lines or "nothing"})


def rollback(
    skill: Annotated[
        str, typer.Argument(metavar="SKILL[@VERSION]", help="A skill; by default its head before this one.")
    ],
    library: Library = DEFAULT,
) -> None:
    """Make an earlier version of a skill its head again; nothing is removed.

    Examples:
        policysmith skills rollback Reach_Goal
        policysmith skills rollback Reach_Goal@3fa94c1b
    """
    with chatter_to_stderr():
        place = _open(library)
        name, mark, version = skill.rpartition("@")
        record = place.rollback(name, version) if mark else place.rollback(skill)
    facts({"head": f"{record.skill}  {record.short}  {record.frames:,} frames"})


COMMANDS: Mapping[str, Callable[..., None]] = {
    "ls": list_skills,
    "show": show,
    "history": history,
    "graph": graph,
    "merge": merge,
    "prune": prune,
    "rollback": rollback,
    "train": train_skills,
    "eval": evaluate,
    "export": export,
}
for _name, _function in COMMANDS.items():
    skills.command(_name, cls=Command)(command(_function))


def _open(library: Path) -> SkillLibrary:
    """The library, which must be there: a command only reads and changes one."""
    from policysmith.skills import SkillLibrary

    return SkillLibrary(library, create=False)


def _skills_table(records: Sequence[SkillRecord]) -> Any:
    table = _table("expert", "skill", "head", "frames", "score", "versions", "needs")
    for record in records:
        head, frames = (record.head or "")[:12], "" if record.frames is None else f"{record.frames:,}"
        numbers = (frames, _score(record.score), str(record.versions))
        table.add_row(str(record.expert), record.name, head, *numbers, ", ".join(record.dependencies))
    return table


def _versions_table(records: Sequence[VersionRecord]) -> Any:
    table = _table("version", "frames", "score", "status", "made", "run")
    for record in records:
        names = [*(["head"] if record.is_head else []), *record.branches]
        status = f"{record.status} ({', '.join(names)})" if names else record.status
        score = _score(record.scores.get(record.skill))
        table.add_row(record.short, f"{record.frames:,}", score, status, _time(record.created), record.run or "")
    return table


def _table(*headings: str) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in headings:
        justify: Literal["left", "right"] = "right" if heading in NUMBERS else "left"
        table.add_column(heading, justify=justify, overflow="fold", style="cyan" if heading == headings[0] else None)
    return table


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.3g}"


def _time(created: str) -> str:
    """A time as people read it; versions of unknown age have none."""
    return created[:19].replace("T", " ") or "unknown"
