"""`policysmith tune`: look for the best values of a configuration's search spaces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policysmith.cli.arguments import Config, Overrides
from policysmith.cli.command import with_plugins
from policysmith.cli.output import chatter_to_stderr, command_line, duration, facts, print_rich, shown_path
from policysmith.cli.runs import RUNS, name_of

if TYPE_CHECKING:
    from policysmith.tuning import Trial, TuneResult

__all__ = ["tune"]

Number = Annotated[int, typer.Option("--trials", metavar="N", min=1, help="How many trials there shall be in all.")]
BaseDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where paths in the model start; by default, beside the file that has them."),
]
Metric = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="return, evaluation or validation-loss; by default what the training knows."),
]


def tune(
    ctx: typer.Context,
    config: Config,
    overrides: Overrides = None,
    trials: Number = 20,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The search's folder; by default runs/tune-<configuration>.")
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes that share the search.")] = 1,
    metric: Metric = None,
    sampler: Annotated[str, typer.Option(metavar="NAME", help="tpe or random.")] = "tpe",
    pruner: Annotated[str, typer.Option(metavar="NAME", help="median, hyperband or none.")] = "median",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the sampler.")] = 0,
    base_dir: BaseDir = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the best configuration's file, nothing else.")] = False,
) -> None:
    """Search for the best values of a configuration.

    A space stands in a value's place: {tune: [64, 128]} or {tune: {low: 1e-5, high: 1e-2, log: true}}. Run again, a
    search goes on; Ctrl-C stops it.

    Examples:
        policysmith tune policy.yaml --trials 50
        policysmith tune policy.yaml --trials 100 --workers 4 --pruner hyperband
        policysmith tune cartpole 'training.gamma={tune: [0.98, 0.99]}' --trials 8
    """
    place = output or RUNS / f"tune-{name_of(config)}"
    with chatter_to_stderr():
        from policysmith import tuning

        options: dict[str, Any] = {"metric": metric, "sampler": sampler, "pruner": pruner}
        result = tuning.tune(
            config,
            overrides or [],
            trials=trials,
            output=place,
            workers=workers,
            seed=seed,
            base_dir=base_dir,
            plugins=ctx.obj or [],
            told=None if quiet else _tell,
            **options,
        )
    if not quiet:
        _summary(ctx, result)
    elif result.best is not None:
        typer.echo(result.files["config"])
    if result.best is None and not result.interrupted:
        raise typer.Exit(1)


def _tell(trials: Sequence[Trial]) -> None:
    for trial in trials:
        said = _reason(trial) if trial.state == "failed" else _figure(trial.value)
        typer.echo(f"trial {trial.number}: {trial.state} {said}", err=True)


def _summary(ctx: typer.Context, result: TuneResult) -> None:
    print_rich(_table(result))
    typer.echo()
    rows: dict[str, Any] = {"stopped": "before the end; run again to go on"} if result.interrupted else {}
    counts = [sum(trial.state == state for trial in result.trials) for state in ("complete", "pruned", "failed")]
    rows["trials"] = f"{counts[0]:,} complete, {counts[1]:,} pruned, {counts[2]:,} failed"
    if result.best is None:
        facts({**rows, "best": "none: no trial was played to its end"})
        return
    best = result.best
    rows["best"] = f"{result.metric} {_figure(best.value)}, trial {best.number}"
    rows |= {name: shown_path(path) for name, path in result.files.items()}
    assert result.artifact is not None
    facts({**rows, "policy": shown_path(result.artifact)})
    verb = "train-offline" if result.offline else "train"
    typer.echo()
    facts({"next": command_line(with_plugins(ctx, [verb, shown_path(result.files["config"])]))})


def _table(result: TuneResult) -> Any:
    """A line a trial: its values, and what it reached or why it failed."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("trial", result.metric, *_short([space.name for space in result.spaces]), "time", ""):
        table.add_column(name, overflow="fold")
    for trial in result.trials:
        values = [_figure(trial.values.get(space.name)) for space in result.spaces]
        time = duration(trial.seconds) if trial.seconds is not None else ""
        said = _reason(trial) if trial.state == "failed" else ""
        state = "" if trial.state == "complete" else f"{trial.state}{': ' if said else ''}{said}"
        style = "bold green" if trial is result.best else ""
        row = (str(trial.number), _figure(trial.value), *values, time, state)
        table.add_row(*(Text(cell) for cell in row), style=style)
    return table


def _reason(trial: Trial) -> str:
    return (trial.reason or "").partition("\n")[0]


def _short(names: Sequence[str]) -> list[str]:
    """Last words of dotted paths, whole paths where two would be the same."""
    last = [name.rpartition(".")[2] for name in names]
    return [word if last.count(word) == 1 else name for word, name in zip(last, names, strict=True)]


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
