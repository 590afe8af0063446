"""`policysmith record`: a stored policy plays, and what happens becomes a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policysmith.cli.arguments import AsJson
from policysmith.cli.output import chatter_to_stderr, count, facts, mean_and_deviation, print_json, shown_path

__all__ = ["record"]


def record(
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="The directory of a stored policy, or store#selector.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the dataset is stored: a new directory.")],
    episodes: Annotated[int, typer.Option(metavar="N", min=1, help="How many whole episodes.")] = 100,
    random_share: Annotated[
        float, typer.Option(metavar="SHARE", min=0, max=1, help="Of the actions, drawn at random from the legal ones.")
    ] = 0.0,
    deterministic: Annotated[
        bool | None,
        typer.Option(
            "--deterministic/--sampled",
            show_default=False,
            help="Take the likeliest action, or draw one; by default what the configuration says.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="In place of the configuration's seed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Record episodes of a stored policy.

    It plays in its own environment; the dataset is for `policysmith train-offline`.

    Examples:
        policysmith record runs/cartpole --episodes 50 --output data/cartpole
        policysmith record runs/cartpole --output data/mixed --random-share 0.2
    """
    with chatter_to_stderr():
        from policysmith import api
        from policysmith.training.datasets import MemmapDataset

        place = api.record(
            artifact, output, episodes, random_share=random_share, deterministic=deterministic, seed=seed
        )
        found = MemmapDataset(str(place)).open()
    returns = found.returns(1.0)[found.starts]
    mean, std = float(returns.mean()), float(returns.std(correction=0))
    if as_json:
        told = {"dataset": str(place), "episodes": len(found), "steps": found.steps, "mean": mean, "std": std}
        print_json(told)
        return
    facts(
        {
            "recorded": f"{count(len(found), 'episode')}, {count(found.steps, 'step')}",
            "return": mean_and_deviation(mean, std),
            "dataset": shown_path(place),
        }
    )
