"""Board and card games for two: PettingZoo's classic games, many tables side by side. N tables, A actions.

In: the `environment` section. Out: `Games`, which tells who is to move and what that player sees, and plays moves.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from policysmith.errors import ConfigError, MissingExtraError, Problem, missing_extra
from policysmith.policy.observations import MASK, ROOT
from policysmith.training.nonfinite.finite_rows import all_finite, bad_rows
from policysmith.training.sections import Environment

__all__ = ["GAMES", "Games", "Ply", "game_spaces", "is_game"]

GAMES = (
    "chess_v6", "connect_four_v3", "go_v5", "leduc_holdem_v4", "texas_holdem_no_limit_v6", "texas_holdem_v4",
    "tictactoe_v3",
)  # fmt: skip
"""The allow-list: PettingZoo's classic games in which two players take turns, with legal moves in an `action_mask`."""


class Ply(NamedTuple):
    """What one move at each of some tables led to: rewards of both seats (n, 2), and which games ended how (n,)."""

    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class Games:
    """N tables with two seats, 0 and 1; `movers` (N,) holds the seat whose turn it is.

    An observation is `{"observation": (n, …), "action_mask": (n, A)}`, as the player to move sees it; boards
    (H, W, C) come as planes (C, H, W). A table whose game has ended waits for `restart`.
    """

    def __init__(self, section: Environment, count: int, **options: Any) -> None:
        make = _maker(section, options)
        self.id, self.count = section.id, count
        self._tables = [make() for _ in range(count)]
        self._agents: list[str] = list(self._tables[0].possible_agents)
        self.observation_space, self.action_space = _spaces(self.id, self._tables[0])
        board, mask = self.observation_space[ROOT], self.observation_space[MASK]
        self._boards = np.zeros((count, *board.shape), board.dtype)
        self._masks = np.zeros((count, *mask.shape), mask.dtype)
        self._planes = len(board.shape) == 3
        self.movers = np.zeros(count, dtype=np.int64)
        self._journals: list[tuple[int, list[int]]] = [(0, [])] * count
        self._seeds = np.random.default_rng()

    @property
    def seats(self) -> tuple[str, str]:
        """What the game calls its two players; the first has the first move, where the game has one."""
        return self._agents[0], self._agents[1]

    @property
    def fps(self) -> float:
        """Pictures a second that suit the game."""
        return float(self._tables[0].metadata.get("render_fps", 1))

    def reset(self, seed: int | None = None) -> None:
        """Begin a game at every table; chance, where a game knows it, follows from the seed."""
        self._seeds = np.random.default_rng(seed)
        for i in range(self.count):
            self.restart(i, None if seed is None else seed + i)

    def restart(self, table: int, seed: int | None = None) -> None:
        """Begin a new game at one table."""
        seed = int(self._seeds.integers(2**31)) if seed is None else seed
        self._journals[table] = (seed, [])
        self._tables[table].reset(seed=seed)
        self._look(table)

    @property
    def journals(self) -> list[tuple[int, list[int]]]:
        """Of the game at each table the seed of its chance, and the moves so far: lists that grow."""
        return list(self._journals)

    @property
    def chance(self) -> dict[str, Any]:
        """The generator of the seeds of games to come, as plain data."""
        return dict(self._seeds.bit_generator.state)

    def replay(self, journals: Sequence[tuple[int, Sequence[int]]], chance: Mapping[str, Any]) -> None:
        """Bring every table to where `journals` and `chance` tell that it stood, by the same moves."""
        for table, (seed, moves) in enumerate(journals):
            self.restart(table, seed)
            for move in moves:
                self.play([table], [move])
        self._seeds.bit_generator.state = chance

    def observe(self, tables: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """What the players to move at these tables see: copies."""
        return {ROOT: self._boards[tables], MASK: self._masks[tables]}

    def ill(self) -> np.ndarray | None:
        """(N,) tables whose player to move sees a number that is not finite; None where there surely is none."""
        if self._boards.dtype.kind != "f" or all_finite(self._boards):
            return None
        return bad_rows(self._boards)

    def play(self, tables: Sequence[int] | np.ndarray, actions: Sequence[int] | np.ndarray) -> Ply:
        """One move at each of these tables, by whoever is to move there; an illegal one raises `ValueError`."""
        count = len(tables)
        ply = Ply(np.zeros((count, 2), np.float32), np.zeros(count, bool), np.zeros(count, bool))
        for k, (table, action) in enumerate(zip(tables, actions, strict=True)):
            self._refuse_illegal(table, action)
            game = self._tables[table]
            self._journals[table][1].append(int(action))
            game.step(int(action))
            ply.rewards[k] = [game.rewards[agent] for agent in self._agents]
            ply.terminated[k] = any(game.terminations.values())
            ply.truncated[k] = not ply.terminated[k] and any(game.truncations.values())
            if not (ply.terminated[k] or ply.truncated[k]):
                self._look(table)
        return ply

    def render(self, table: int = 0) -> Any:
        """A picture of a table, where the options asked for `render_mode: rgb_array`."""
        return self._tables[table].render()

    def close(self) -> None:
        """Free what the games hold."""
        for game in self._tables:
            game.close()

    def _look(self, table: int) -> None:
        """Take in who is to move, and what that player sees."""
        game = self._tables[table]
        agent = game.agent_selection
        seen = game.observe(agent)
        self.movers[table] = self._agents.index(agent)
        self._boards[table] = seen[ROOT].transpose(2, 0, 1) if self._planes else seen[ROOT]
        self._masks[table] = seen[MASK]

    def _refuse_illegal(self, table: int, action: Any) -> None:
        if not (0 <= action < self._masks.shape[1] and self._masks[table, action]):
            legal = ", ".join(map(str, np.flatnonzero(self._masks[table])))
            mover = self._agents[self.movers[table]]
            raise ValueError(f"{self.id}: {mover} can't play {action} at table {table}; legal moves: {legal}")


def is_game(section: Environment | None) -> bool:
    """Whether the section names one of `GAMES`."""
    return section is not None and section.id in GAMES


def game_spaces(section: Environment) -> tuple[spaces.Dict, spaces.Discrete]:
    """The observation and action space of both players."""
    game = _maker(section, {})()
    found = _spaces(section.id, game)
    game.close()
    return found


def _maker(section: Environment, options: dict[str, Any]) -> Callable[[], Any]:
    """What makes one game, without PettingZoo's own wrappers: legality is checked here, and they cost as much again."""
    _refuse_vector_options(section)
    try:
        pettingzoo = importlib.import_module("pettingzoo")
    except ImportError as error:
        raise missing_extra("pettingzoo", "board") from error

    def make() -> Any:
        try:
            return pettingzoo.make("aec", f"classic/{section.id}", **{**section.options, **options}).unwrapped
        except Exception as error:  # whatever games raise: each has its own way of refusing options
            if isinstance(error.__cause__, ImportError):
                raise _missing(section.id, error.__cause__) from error
            place = "environment.options" if section.options else "environment.id"
            raise ConfigError([Problem(place, f"{section.id} can't be made: {error}")]) from error

    return make


def _refuse_vector_options(section: Environment) -> None:
    given = {"vectorization": "sync", "autoreset": "same_step"}
    problems = [
        Problem(f"environment.{name}", f"games run in this process: leave {name}={getattr(section, name)!r} out")
        for name, only in given.items()
        if getattr(section, name) != only
    ]
    if section.wrappers:
        problems.append(Problem("environment.wrappers", f"the game {section.id} takes no wrappers: leave them out"))
    if problems:
        raise ConfigError(problems)


def _missing(name: str, error: ImportError) -> MissingExtraError:
    if error.name in ("pygame", "chess"):
        return missing_extra(error.name, "board")
    return MissingExtraError(f"{name} needs {error.name}; run: pip install 'pettingzoo[classic]'")


def _spaces(name: str, game: Any) -> tuple[spaces.Dict, spaces.Discrete]:
    agents = list(game.possible_agents)
    if len(agents) != 2:
        raise ConfigError(
            [Problem("environment.options", f"{name} has {len(agents)} players here; self-play is for two")]
        )
    board, mask = (game.observation_space(agents[0])[key] for key in (ROOT, MASK))
    return spaces.Dict({ROOT: _planes_first(board), MASK: mask}), game.action_space(agents[0])


def _planes_first(board: spaces.Box) -> spaces.Box:
    if len(board.shape) != 3:
        return board
    low, high = (bound.transpose(2, 0, 1) for bound in (board.low, board.high))
    return spaces.Box(low, high, dtype=board.dtype.type)
