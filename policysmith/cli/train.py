"""`policysmith train`: train what a configuration describes, and store it."""

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
    from policysmith.training.run.results import TrainingResult

__all__ = ["train"]


@with_options_of(api.train, without=("progress", "evaluate"), notes={"output": OUTPUT})
def train(
    ctx: typer.Context,
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG",
            help="An experiment file, or a preset (see `policysmith list presets`). With --resume it may be left out.",
        ),
    ] = None,
    overrides: Overrides = None,
    *,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Train a policy, evaluate it, and store it.

    Ctrl-C stops after the current iteration and saves; the run can be resumed.

    Examples:
        policysmith train cartpole
        policysmith train policy.yaml model.hidden=[128,128] --seed 3
        policysmith train --resume runs/cartpole training.total_steps=1_000_000
    """
    resume = options.get("resume")
    config, overrides = run_arguments(config, overrides or [], options.get("seed"), resume)
    given = {**options, "output": run_place(config, options.get("output"), resume), "progress": not quiet}
    with chatter_to_stderr():
        result = api.train(config, overrides, **given)
    if result.artifact is None:
        return  # another process of torchrun's has written it, and says so
    if quiet:
        tell_remarks(result)
        typer.echo(result.artifact)
    else:
        _summary(ctx, result, resumed=resume is not None)


def _summary(ctx: typer.Context, result: TrainingResult, resumed: bool) -> None:
    steps, evaluation = f"{result.steps:,}", result.evaluation
    if resumed:  # the steps are those of all runs together
        steps += f" in all, {duration(result.seconds)} in this run"
    else:
        steps += f" in {duration(result.seconds)} ({result.steps / max(result.seconds, 1e-9):,.0f} steps/s)"
    rows: dict[str, Any] = {"stopped": "before the end; what was learned is saved"} if result.interrupted else {}
    rows["steps"] = steps
    if told := str(result.left_out):
        rows["left out"] = told
    if evaluation:
        score = mean_and_deviation(evaluation.mean, evaluation.std)
        rows["return"] = f"{score} over {evaluation.episodes:,} episodes"
    labels = {"learning_curve": "curve", "diagram": "diagram"}
    if result.artifact:
        rows["policy"] = shown_path(result.artifact)
    rows |= {labels.get(name, name): shown_path(path) for name, path in result.files.items()}
    facts(rows)
    if result.artifact:
        typer.echo()
        facts(_next(ctx, result, shown_path(result.artifact)))


def _next(ctx: typer.Context, result: TrainingResult, place: str) -> dict[str, Any]:
    """What to try now, as commands."""
    resume = ["train", "--resume", place]
    if result.interrupted:
        return {"resume": command_line(with_plugins(ctx, resume))}
    commands = (["show", place], ["eval", place], [*resume, *_further(result)])
    return {"next": [command_line(with_plugins(ctx, words)) for words in commands]}


def _further(result: TrainingResult) -> list[str]:
    """Overrides with which a finished run goes on: twice the steps, and no goal that is met already."""
    training = result.policy.config.get("training", {})
    goal, evaluation = training.get("solved_at"), result.evaluation
    met = goal is not None and evaluation is not None and evaluation.mean >= goal
    steps = 2 * training.get("total_steps", result.steps)
    return [f"training.total_steps={steps:_}", *(["training.solved_at=null"] if met else [])]
