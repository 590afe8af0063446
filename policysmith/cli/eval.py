"""`policysmith eval`: play whole episodes with a stored policy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from policysmith.cli.arguments import AsJson
from policysmith.cli.output import chatter_to_stderr, count, facts, mean_and_deviation, print_json, shown_path

__all__ = ["evaluate"]


def evaluate(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The directory of a stored policy.")],
    episodes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How many; by default what the configuration says.")
    ] = None,
    deterministic: Annotated[
        bool | None,
        typer.Option(
            "--deterministic/--sampled",
            show_default=False,
            help="Take the likeliest action, or draw one; by default what the configuration says.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="In place of the configuration's seed.")] = None,
    video: Annotated[Path | None, typer.Option(metavar="FILE", help="Film one episode (.mp4 or .gif).")] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a stored policy.

    It plays whole episodes; the result is their mean return ± one standard deviation.

    Examples:
        policysmith eval runs/cartpole
        policysmith eval runs/cartpole --episodes 20 --sampled --video cartpole.mp4
    """
    with chatter_to_stderr():
        from policysmith import api

        result = api.evaluate(artifact, episodes=episodes, deterministic=deterministic, seed=seed, video=video)
    if as_json:
        mean, std = (value if math.isfinite(value) else None for value in (result.mean, result.std))
        print_json({"mean": mean, "std": std, "episodes": result.episodes})
        return
    rows = {"return": f"{mean_and_deviation(result.mean, result.std)} over {count(result.episodes, 'episode')}"}
    facts(rows | ({"video": shown_path(video)} if video else {}))
