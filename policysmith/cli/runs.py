"""What commands that train have in common: their arguments, and the directory that a run goes to.

In: what was typed. Out: a configuration with its overrides, and a place that holds no other policy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policysmith.cli.arguments import is_override
from policysmith.errors import PolicysmithError

__all__ = ["OUTPUT", "RUNS", "Output", "Quiet", "name_of", "run_arguments", "run_place", "tell_remarks"]

if TYPE_CHECKING:
    from policysmith.training.run.results import OfflineResult, TrainingResult

RUNS = Path("runs")
SUFFIXES = (".yaml", ".yml", ".json")

OUTPUT = "Where the policy is stored; by default a new directory under runs/."
Output = Annotated[Path | None, typer.Option(metavar="DIR", help=OUTPUT)]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print the directory of the policy, and nothing else.")]


def run_arguments(
    config: str | None, overrides: list[str], seed: int | None, resume: Path | None
) -> tuple[str | None, list[str]]:
    """The configuration, if there is one, and all overrides; a usage error for a seed that a resumed run has."""
    if resume and seed is not None:
        raise typer.BadParameter("a resumed run keeps its own seed", param_hint="--seed")
    if resume and config and is_override(config):
        return None, [config, *overrides]
    if config is None and resume is None:
        raise typer.BadParameter("an experiment file or a preset is needed, such as 'cartpole'", param_hint="CONFIG")
    return config, overrides


def run_place(config: str | None, output: Path | None, resume: Path | None) -> Path | None:
    """Where the run is stored; None: in place of the one that is resumed. Raises where another policy lies there."""
    place = output or (None if resume else _new_directory(config or ""))
    if place and not (resume and place.resolve() == resume.resolve()) and _is_taken(place):
        raise PolicysmithError(f"{place} holds a policy already: choose another --output, or train it on with --resume")
    return place


def _is_taken(place: Path) -> bool:
    if not (place / "manifest.json").exists():
        return False
    from policysmith.training.run.run_folder import is_taken

    return is_taken(place)


def _new_directory(config: str) -> Path:
    """`runs/<name of the configuration>`, with a number if that is taken."""
    name = name_of(config)
    place, number = RUNS / name, 2
    while place.exists():
        place, number = RUNS / f"{name}-{number}", number + 1
    return place


def name_of(config: str) -> str:
    """What a configuration is called: its file's name without the suffix."""
    name = Path(config).name
    return next((name.removesuffix(s) for s in SUFFIXES if name.endswith(s)), name) or "policy"


def tell_remarks(result: TrainingResult | OfflineResult) -> None:
    """What a quiet run has not said on the way: its notes, and what it left out."""
    for note in result.notes:
        typer.echo(f"note: {note}", err=True)
    if told := str(result.left_out):
        typer.echo(f"left out: {told}", err=True)
