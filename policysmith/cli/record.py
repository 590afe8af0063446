"""`policysmith record`: a stored policy plays, and what happens becomes a dataset."""

from __future__ import annotations

from typing import Any

from policysmith import api
from policysmith.cli.arguments import Artifact, AsJson
from policysmith.cli.from_signature import with_options_of
from policysmith.cli.output import chatter_to_stderr, count, facts, mean_and_deviation, print_json, shown_path

__all__ = ["record"]


@with_options_of(api.record, without=("policy",))
def record(artifact: Artifact, *, as_json: AsJson = False, **options: Any) -> None:
    """Record episodes of a stored policy.

    It plays in its own environment; the dataset is for `policysmith train-offline`.

    Examples:
        policysmith record runs/cartpole --episodes 50 --output data/cartpole
        policysmith record runs/cartpole --output data/mixed --random-share 0.2
    """
    with chatter_to_stderr():
        from policysmith.training.datasets import MemmapDataset

        place = api.record(artifact, **options)
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
