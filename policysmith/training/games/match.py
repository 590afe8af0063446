"""Judging a policy at a game for two: games against a random player or another policy, from both seats.

In: a policy and the game's section. Out: what came of each game, and the score with its interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from policysmith.config.experiment import Experiment
from policysmith.errors import ConfigError
from policysmith.policy.actor_critic import ActorCritic
from policysmith.store import load
from policysmith.training.environments.gate import warn_of_unsound
from policysmith.training.environments.two_player import Games, is_game
from policysmith.training.games.opponents import Player, PolicyPlayer, RandomPlayer, by_player
from policysmith.training.process.generators import own_generators
from policysmith.training.process.threads import few_threads
from policysmith.training.rollout.evaluation import EvaluationResult, evaluate_policy, film_writer, record_video
from policysmith.training.sections import Environment, Evaluation

__all__ = ["RANDOM", "MatchResult", "Tally", "judge", "judge_as_told", "play_match", "record_match"]

RANDOM = "random"
TABLES = 256
Z95 = 1.959964  # two-sided 95 % of the normal distribution


class _Results(NamedTuple):
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    seats: tuple[int, ...]
    names: tuple[str, str]


class Tally(NamedTuple):
    """Results from the policy's point of view."""

    wins: int
    draws: int
    losses: int


@dataclass(frozen=True)
class MatchResult(EvaluationResult):
    """Games of a policy against `opponent`: returns and lengths (moves of both), and the seat it took in each.

    `names` is what the game calls its seats.
    """

    seats: tuple[int, ...]
    names: tuple[str, str]
    opponent: str

    def tally(self, seat: int | None = None) -> Tally:
        """Games won, drawn and lost, in one seat or both."""
        results = [r for r, s in zip(self.returns, self.seats, strict=True) if seat in (None, s)]
        return Tally(sum(r > 0 for r in results), sum(r == 0 for r in results), sum(r < 0 for r in results))

    @property
    def score(self) -> float:
        """The share of points: a win is one, a draw half."""
        wins, draws, _ = self.tally()
        return (wins + draws / 2) / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the score, as if every game were won or lost: draws only make it narrower."""
        n, p = self.episodes, self.score
        centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)


def judge(
    policy: ActorCritic, environment: Environment, episodes: int = 100, deterministic: bool = True, seed: int = 10_000
) -> EvaluationResult:
    """`episodes` episodes of a task, or as many games against a random player."""
    if is_game(environment):
        return play_match(policy, environment, games=episodes, deterministic=deterministic, seed=seed)
    return evaluate_policy(policy, environment, episodes, deterministic, seed)


def judge_as_told(
    policy: ActorCritic,
    experiment: Experiment,
    *,
    episodes: int | None = None,
    deterministic: bool | None = None,
    seed: int | None = None,
    video: str | Path | None = None,
    opponent: ActorCritic | str | Path | None = None,
) -> EvaluationResult | MatchResult:
    """Play in the experiment's environment, a film of one episode first; what is not given its section says.

    In a game, `opponent` is a policy, what `load` takes, or `random` (the default). Two policies draw their moves
    unless told to be `deterministic`: they would repeat the same two games.
    """
    environment, usual = experiment.find(Environment), experiment.of(Evaluation)
    if environment is None:
        raise ConfigError("the policy's configuration has no environment to evaluate it in: name one")
    count, chosen = episodes or usual.episodes, usual.seed if seed is None else seed
    if not is_game(environment):
        if opponent is not None:
            raise ConfigError(f"{environment.id} is no game for two: it takes no opponent")
        warn_of_unsound(experiment)
        greedy = usual.deterministic if deterministic is None else deterministic
        if video is not None:
            record_video(policy, environment, video, greedy, chosen)
        return evaluate_policy(policy, environment, count, greedy, chosen)
    name = None if opponent is None or isinstance(opponent, ActorCritic) else str(opponent)
    rival = opponent if isinstance(opponent, ActorCritic) else None if name in (None, RANDOM) else load(name)
    greedy = (usual.deterministic and rival is None) if deterministic is None else deterministic
    if video is not None:
        record_match(policy, environment, video, rival, greedy, chosen)
    return play_match(policy, environment, rival, count, greedy, chosen, name)


def play_match(
    policy: ActorCritic,
    environment: Environment,
    opponent: ActorCritic | None = None,
    games: int = 200,
    deterministic: bool = True,
    seed: int = 10_000,
    name: str | None = None,
) -> MatchResult:
    """Play so many games, in both seats by turns; without an `opponent` against a player of random legal moves.

    `deterministic` holds for both policies, which then play the same two games again and again. `name` is the
    opponent's in the result. The policies' training modes and the global generators are left as they were; sampled
    moves follow from `seed`, whatever other threads draw meanwhile.
    """
    modes = [(player, player.training) for player in (policy, opponent) if player is not None]
    with own_generators(seed, policy.device), few_threads(policy):
        try:
            results = _play_all(_players(policy, opponent, deterministic, seed), environment, games, seed)
        finally:
            for player, training in modes:
                player.train(training)
    return MatchResult(*results, opponent=name or (RANDOM if opponent is None else "policy"))


def record_match(
    policy: ActorCritic,
    environment: Environment,
    path: str | Path,
    opponent: ActorCritic | None = None,
    deterministic: bool = True,
    seed: int = 0,
) -> Path:
    """One game, the policy in the first seat, as a film (`.mp4` or `.gif`), which follows from `seed`; needs the extra
    `video`.
    """
    write = film_writer()
    players = _players(policy, opponent, deterministic, seed)
    games = Games(environment, 1, render_mode="rgb_array")
    with own_generators(seed, policy.device):
        games.reset(seed)
        frames, over = [games.render()], False
        while not over:
            ply = games.play([0], players[games.movers[0]].act(games.observe([0])))
            frames.append(games.render())
            over = bool(ply.terminated[0] or ply.truncated[0])
    games.close()
    return write(frames, games.fps, Path(path))


def _players(
    policy: ActorCritic, opponent: ActorCritic | None, deterministic: bool, seed: int
) -> tuple[Player, Player]:
    if opponent is None:
        return PolicyPlayer(policy.eval(), deterministic), RandomPlayer(seed)
    for what in ("observations", "actions"):
        mine, theirs = getattr(policy, what).space, getattr(opponent, what).space
        if mine != theirs:
            raise ConfigError(f"the opponent plays another game: its {what} are {theirs}, the policy's are {mine}")
    return PolicyPlayer(policy.eval(), deterministic), PolicyPlayer(opponent.eval(), deterministic)


def _play_all(players: tuple[Player, Player], environment: Environment, games: int, seed: int) -> _Results:
    """All games, up to so many side by side; the policy has seat 0 in every second one."""
    returns, lengths = np.zeros(games), np.zeros(games, dtype=np.int64)
    seats = np.arange(games) % 2
    for first in range(0, games, TABLES):
        part = slice(first, min(first + TABLES, games))
        tables = Games(environment, part.stop - first)
        tables.reset(seed + first)
        returns[part], lengths[part] = _play(players, tables, seats[part])
        tables.close()
    return _Results(tuple(returns.tolist()), tuple(lengths.tolist()), tuple(seats.tolist()), tables.seats)


def _play(players: tuple[Player, Player], games: Games, seats_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One game at each table, the policy in the given seats → its returns (N,), and lengths (N,)."""
    returns_N, lengths_N = np.zeros(games.count), np.zeros(games.count, dtype=np.int64)
    going = np.arange(games.count)
    while len(going):
        actions = np.zeros(len(going), dtype=np.int64)
        for which, rows in by_player((games.movers[going] != seats_N[going]).tolist()).items():
            actions[rows] = players[which].act(games.observe(going[rows]))
        ply = games.play(going, actions)
        returns_N[going] += ply.rewards[np.arange(len(going)), seats_N[going]]
        lengths_N[going] += 1
        going = going[~(ply.terminated | ply.truncated)]
    return returns_N, lengths_N
