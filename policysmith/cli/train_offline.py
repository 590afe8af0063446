"""`policysmith train-offline`: train what a configuration describes on recorded episodes, and store it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from policysmith import api
from policysmith.cli.arguments import Overrides
from policysmith.cli.command import with_plugins
from policysmith.cli.from_signature import with_options_of
from policysmith.cli.output import chatter_to_stderr, command_line, duration, facts, mean_and_deviation, shown_path
from policysmith.cli.runs import OUTPUT, Quiet, run_arguments, run_place, tell_remarks

if TYPE_CHECKING:
    from policysmith.training.run.results import OfflineResult

__all__ = ["train_offline"]


@with_options_of(api.train_offline, without=("progress", "evaluate"), notes={"output": OUTPUT})
def train_offline(
    ctx: typer.Context,
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="An experiment file. With --resume it may be left out."),
    ] = None,
    overrides: Overrides = None,
    *,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Train a policy on recorded episodes, and store it.

    The data is that of training.dataset. Ctrl-C saves; a run that was interrupted, or killed, can be resumed and ends
    with the same weights.

    Examples:
        policysmith train-offline clone.yaml
        policysmith train-offline clone.yaml training.objective=awr --output runs/awr
        policysmith train-offline --resume runs/clone
    """
    resume = options.get("resume")
    config, overrides = run_arguments(config, overrides or [], options.get("seed"), resume)
    given = {**options, "output": run_place(config, options.get("output"), resume), "progress": not quiet}
    with chatter_to_stderr():
        result = api.train_offline(config, overrides, **given)
    if result.artifact is None:
        return  # another process of torchrun's has written it, and says so
    if quiet:
        tell_remarks(result)
        typer.echo(result.artifact)
    else:
        _summary(ctx, result)


def _summary(ctx: typer.Context, result: OfflineResult) -> None:
    rows: dict[str, Any] = {"stopped": "before the end; what was learned is saved"} if result.interrupted else {}
    rows["updates"] = f"{result.updates:,} in all, {duration(result.seconds)} in this run"
    if left_out := str(result.left_out):
        rows["left out"] = left_out
    for name in ("loss", "accuracy", "mse"):
        found = {kind: result.metrics.get(f"{kind}/{name}") for kind in ("training", "validation")}
        told = [f"{value:.4g} ({kind})" for kind, value in found.items() if value is not None]
        rows |= {name: ", ".join(told)} if told else {}
    if result.evaluation:
        score = mean_and_deviation(result.evaluation.mean, result.evaluation.std)
        rows["return"] = f"{score} over {result.evaluation.episodes:,} episodes"
    place = shown_path(result.artifact) if result.artifact else ""
    labels = {"learning_curve": "curve"}
    rows |= {"policy": place} | {labels.get(name, name): shown_path(path) for name, path in result.files.items()}
    facts(rows)
    typer.echo()
    commands = [["train-offline", "--resume", place]] if result.interrupted else [["show", place], ["eval", place]]
    if not result.interrupted and result.evaluation is None:
        commands = commands[:1]
    label = "resume" if result.interrupted else "next"
    facts({label: [command_line(with_plugins(ctx, words)) for words in commands]})
