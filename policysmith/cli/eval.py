"""`policysmith eval`: play whole episodes with a stored policy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from policysmith import api
from policysmith.cli.arguments import Artifact, AsJson
from policysmith.cli.from_signature import with_options_of
from policysmith.cli.output import chatter_to_stderr, count, facts, mean_and_deviation, print_json, shown_path

if TYPE_CHECKING:
    from policysmith.training.games.match import MatchResult
    from policysmith.training.rollout.evaluation import EvaluationResult

__all__ = ["evaluate"]


@with_options_of(api.evaluate, without=("policy",))
def evaluate(artifact: Artifact, *, as_json: AsJson = False, **options: Any) -> None:
    """Evaluate a stored policy.

    It plays whole episodes; the result is their mean return ± one standard deviation. In a game for two it is the share
    of points (a draw is half a point) with a 95 % interval, and the results in each seat.

    Examples:
        policysmith eval runs/cartpole
        policysmith eval policies#best:return
        policysmith eval runs/cartpole --episodes 20 --sampled --video cartpole.mp4
        policysmith eval runs/connect-four --opponent runs/connect-four-2 --games 200
    """
    with chatter_to_stderr():
        from policysmith.training.games.match import MatchResult

        result = api.evaluate(artifact, **options)
    match = result if isinstance(result, MatchResult) else None
    if as_json:
        mean, std = (value if math.isfinite(value) else None for value in (result.mean, result.std))
        print_json({"mean": mean, "std": std, "episodes": result.episodes, **(_match_data(match) if match else {})})
        return
    rows = _match_rows(match) if match else {"return": _return_of(result)}
    video = options.get("video")
    facts(rows | ({"video": shown_path(video)} if video else {}))


def _return_of(result: EvaluationResult) -> str:
    return f"{mean_and_deviation(result.mean, result.std)} over {count(result.episodes, 'episode')}"


def _match_rows(match: MatchResult) -> dict[str, str]:
    low, high = match.interval
    games = count(match.episodes, "game")
    rows = {"score": f"{match.score:.1%} of {games} against {match.opponent} (95 % interval {low:.1%} to {high:.1%})"}
    for seat, name in enumerate(match.names):
        rows[name] = "{} won, {} drawn, {} lost".format(*match.tally(seat))
    return rows


def _match_data(match: MatchResult) -> dict[str, Any]:
    seats = {name: match.tally(seat)._asdict() for seat, name in enumerate(match.names)}
    return {"opponent": match.opponent, "score": match.score, "interval": list(match.interval), "seats": seats}
