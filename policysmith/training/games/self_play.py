"""Self-play: a policy learns a game from both seats, against itself, copies of its past, and a random player.

In: a policy and `Games`. Out: rollouts of the moves that the policy itself made, each rewarded with what it led to by
the player's next turn. N tables, T moves a table, M moves of the learner, L of them in the longest of 2N columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policysmith.errors import ConfigError, NonFiniteError, Problem
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.observations import ROOT
from policysmith.training.environments.two_player import Games, Ply
from policysmith.training.games.opponents import OpponentPool, Player, PolicyPlayer, by_player, weights_of
from policysmith.training.nonfinite.events import NonFinite
from policysmith.training.nonfinite.finite_rows import all_finite, bad_rows, first_bad
from policysmith.training.rollout.environment_state import State
from policysmith.training.rollout.rollout import Episode, Rollout

__all__ = ["SelfPlayCollector"]

UNKNOWN, ENDED = -1, -2
RETIRED = "retired/"  # copies that have left the pool, and still play a game to its end


@dataclass
class _Moves:
    """The learner's moves of one rollout, in the order made.

    `following` holds the index of the same seat's next move in the game, or that the game `ENDED`; `last` the index of
    the latest move of a seat that waits for its turn, and `columns` every move of a seat.
    """

    tables: int
    acted: list[tuple[Any, Tensor, Tensor, Tensor]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    following: list[int] = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.columns: list[list[int]] = [[] for _ in range(2 * self.tables)]
        self.last = [UNKNOWN] * (2 * self.tables)

    def add(self, column: int) -> None:
        """A move: it is what followed the seat's move before."""
        index = len(self.rewards)
        if self.last[column] != UNKNOWN:
            self.following[self.last[column]] = index
        self.columns[column].append(index)
        self.last[column] = index
        self.rewards.append(0.0)
        self.following.append(UNKNOWN)

    def reward(self, column: int, reward: float, terminated: bool, over: bool) -> None:
        """What happened since to the seat's latest move; a game that was cut off tells nothing of its last moves."""
        index = self.last[column]
        if index == UNKNOWN:
            return
        self.rewards[index] += reward
        if over:
            self.following[index] = ENDED if terminated else UNKNOWN
            self.last[column] = UNKNOWN


class SelfPlayCollector:
    """Plays at all tables, a move at each in turn; `step` counts the moves of all players.

    Where the policy meets itself it learns from both seats. Reported episodes are the games against the random player,
    by the result for the learner: how it fares against itself says nothing of how good it is.
    """

    def __init__(
        self, policy: ActorCritic, games: Games, pool: OpponentPool, seed: int | None = None, step: int = 0
    ) -> None:
        self.policy, self.environments, self.pool, self.step = policy, games, pool, step
        self.count = games.count
        self._players: list[list[Player]] = [[pool.learner, pool.learner] for _ in range(self.count)]
        self._side = np.arange(self.count) % 2
        self._returns, self._lengths = np.zeros(self.count), np.zeros(self.count, dtype=np.int64)
        self._left_out: list[NonFinite] = []
        self._in_a_row = np.zeros(self.count, dtype=np.int64)
        pool.seed(seed)
        games.reset(seed)
        for table in range(self.count):
            self._seat(table)

    def collect(self, steps: int) -> Rollout:
        """`steps` moves at every table, with the policy as it is now."""
        act = self.policy.acting()
        moves = _Moves(self.count)
        for _ in range(steps):
            self._move(act, moves)
        rollout = self._rollout(moves)
        met = {event.environment for event in self._left_out}
        self._in_a_row[[table for table in range(self.count) if table not in met]] = 0
        rollout.nonfinite, self._left_out = self._left_out, []
        return rollout

    def capture(self) -> Callable[[], State]:
        """Where the games stand now; what is returned puts it into tensors and data, however late it is called."""
        games, pool = self.environments, self.pool
        known: list[Player] = [pool.learner, pool.random, *pool.past]
        players = [[*pair] for pair in self._players]
        retired = list({id(p): p for pair in players for p in pair if p not in known}.values())
        numbers = {id(player): number for number, player in enumerate([*known, *retired])}
        data = {
            "section": games.id, "past": len(pool.past), "chance": games.chance, "side": self._side.tolist(),
            "returns": self._returns.tolist(), "lengths": self._lengths.tolist(),
            "players": [[numbers[id(player)] for player in pair] for pair in players],
            "generators": {name: generator.bit_generator.state for name, generator in pool.generators.items()},
        }  # fmt: skip
        journals = [(seed, moves, len(moves)) for seed, moves in games.journals]
        weights = weights_of(player for player in retired if isinstance(player, PolicyPlayer))
        return lambda: (
            {RETIRED + name: tensor for name, tensor in weights.items()},
            {**data, "games": [[seed, moves[:count]] for seed, moves, count in journals]},
        )

    def restore(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any], seed: int | None = None) -> str | None:
        """Bring the games to where they stood; else None is changed but new games, and why.

        The pool has its past copies back already.
        """
        if "games" not in data:
            return "the checkpoint does not say where they stood"
        found = data["section"], len(data["games"]), data["past"]
        if found != (self.environments.id, self.count, len(self.pool.past)):
            return "there are other games, tables or past opponents now"
        self.environments.replay([(seed, moves) for seed, moves in data["games"]], data["chance"])
        retired = {key.removeprefix(RETIRED): t for key, t in tensors.items() if key.startswith(RETIRED)}
        everybody = [self.pool.learner, self.pool.random, *self.pool.past, *self.pool.players(retired)]
        self._players = [[everybody[number] for number in pair] for pair in data["players"]]
        self._side = np.asarray(data["side"])
        self._returns, self._lengths = np.asarray(data["returns"], float), np.asarray(data["lengths"], np.int64)
        for name, generator in self.pool.generators.items():
            generator.bit_generator.state = data["generators"][name]
        return None

    def _move(self, act: Any, moves: _Moves) -> None:
        games, policy = self.environments, self.policy
        actions = np.zeros(self.count, dtype=np.int64)
        for player, tables in by_player(self._players[i][s] for i, s in enumerate(games.movers)).items():
            seen = games.observe(tables)
            if player is not self.pool.learner:
                actions[tables] = player.act(seen)
                continue
            obs = policy.prepare(seen)
            action, log_prob, value = act(obs)
            moves.acted.append((obs, action, log_prob, value))
            actions[tables] = policy.actions.to_environment(action)
            for table in tables:
                moves.add(2 * table + games.movers[table])
        ply = games.play(range(self.count), actions)
        self.step += self.count
        stopped = self._not_finite(ply)
        for table, rewards, terminated, truncated in zip(range(self.count), *map(np.ndarray.tolist, ply), strict=True):
            if table in stopped:
                for seat in (0, 1):
                    moves.reward(2 * table + seat, 0.0, terminated=False, over=True)
                self._begin(table)
                continue
            over = terminated or truncated
            for seat in (0, 1):
                moves.reward(2 * table + seat, rewards[seat], terminated, over)
            self._returns[table] += rewards[self._side[table]]
            self._lengths[table] += 1
            if over:
                self._end(table, moves)

    def _end(self, table: int, moves: _Moves) -> None:
        if self.pool.random in self._players[table]:
            moves.episodes.append(Episode(self.step, float(self._returns[table]), int(self._lengths[table])))
        self._in_a_row[table] = 0
        self._begin(table)

    def _begin(self, table: int) -> None:
        """A new game. Raises `NonFiniteError` where its opening is not finite: no game could be played."""
        self.environments.restart(table)
        ill = self.environments.ill()
        if ill is not None and ill[table]:
            raise NonFiniteError(
                f"{self.environments.id}: a new game at table {table} begins with numbers that are "
                "not finite: mend the game"
            )
        self._seat(table)

    def _not_finite(self, ply: Ply) -> set[int]:
        """Tables whose game ends here, for a reward or for what the next player sees. Their last moves have no known
        outcome, as where a game is cut off.
        """
        rewards = None if all_finite(ply.rewards) else bad_rows(ply.rewards)
        boards = self.environments.ill()
        stopped: set[int] = set()
        for leaf, rows, found in (("reward", rewards, ply.rewards), ("observation", boards, None)):
            over = ply.terminated | ply.truncated if found is None else np.zeros(self.count, dtype=bool)
            for table in [] if rows is None else np.flatnonzero(rows & ~over).tolist():
                if table not in stopped:
                    self._in_a_row[table] += 1
                    array = self.environments.observe([table])[ROOT] if found is None else found[table]
                    event = NonFinite(self.step, table, leaf, first_bad(array), int(self._in_a_row[table]))
                    self._left_out.append(event)
                    stopped.add(table)
        return stopped

    def _seat(self, table: int) -> None:
        """A new game: draw who plays it; against others the learner changes seats from game to game."""
        self._returns[table] = self._lengths[table] = 0
        opponent = self.pool.draw()
        self._players[table] = [self.pool.learner, self.pool.learner]
        if opponent is not self.pool.learner:
            self._side[table] ^= 1
            self._players[table][1 - self._side[table]] = opponent

    @torch.no_grad()
    def _rollout(self, moves: _Moves) -> Rollout:
        """Moves in columns, a seat each, in time. Fillers, and moves whose outcome is not known yet, are not valid."""
        if not self._left_out and all(after == UNKNOWN for after in moves.following):
            message = "so few moves at a table tell no result: a player's next turn must come within them"
            raise ConfigError([Problem("training.rollout_steps", message)])
        policy, device = self.policy, self.policy.device
        observations, actions, log_probs, values = zip(*moves.acted, strict=True)
        read, leaves_of = policy.observations.read, policy.actions.leaves_of
        index, filled = _columns(moves)
        following_M = np.asarray(moves.following)
        known_M, ended_M = following_M != UNKNOWN, following_M == ENDED
        # A trace goes no further than to the last move whose outcome is known; its value stands for the rest.
        cut_M = ended_M | ~known_M[following_M]
        values_M = torch.cat(values)
        next_values_M = values_M[torch.as_tensor(np.maximum(following_M, 0))]
        masks = [policy._masks(obs, read(obs), None) for obs in observations]

        def laid(leaf_M: Tensor) -> Tensor:
            return leaf_M.to(device)[index]

        return Rollout(
            observations=[laid(torch.cat(leaf)) for leaf in zip(*map(read, observations), strict=True)],
            actions=[laid(torch.cat(leaf)) for leaf in zip(*map(leaves_of, actions), strict=True)],
            masks=[laid(torch.cat(leaf)) for leaf in zip(*masks, strict=True)],
            log_probs=laid(torch.cat(log_probs)),
            values=laid(values_M),
            next_values=laid(next_values_M),
            rewards=laid(torch.tensor(moves.rewards)),
            terminated=laid(torch.as_tensor(ended_M).float()),
            done=laid(torch.as_tensor(cut_M).float()),
            valid=laid(torch.as_tensor(known_M)) & filled.to(device),
            episodes=moves.episodes,
        )


def _columns(moves: _Moves) -> tuple[Tensor, Tensor]:
    """Where each move goes: indices (L, 2N), and which of them are no fillers; those are moves taken evenly."""
    length, width = max(map(len, moves.columns)), len(moves.columns)
    index = (np.arange(length * width) % len(moves.rewards)).reshape(length, width)
    filled = np.zeros((length, width), dtype=bool)
    for column, found in enumerate(moves.columns):
        index[: len(found), column] = found
        filled[: len(found), column] = True
    return torch.as_tensor(index), torch.as_tensor(filled)
