"""Opponents in games for two: players, and the pool that self-play draws them from.

In: what the players to move see at n tables. Out: a legal move for each.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from policysmith.errors import ConfigError
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.observations import MASK
from policysmith.training.sections import SelfPlay

__all__ = ["Player", "PolicyPlayer", "OpponentPool", "RandomPlayer", "by_player", "weights_of"]


class Player(Protocol):
    """Chooses moves."""

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Legal moves (n,) for n observations of `Games`."""
        ...


class RandomPlayer:
    """Any legal move, each as likely as the others."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = np.random.default_rng(seed)

    @property
    def generator(self) -> np.random.Generator:
        """What its moves are drawn from."""
        return self._random

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """The legal move with the highest lot."""
        mask = observation[MASK] != 0
        return np.where(mask, self._random.random(mask.shape), -1.0).argmax(-1)


class PolicyPlayer:
    """A policy, drawing its moves from its distribution, or taking the likeliest if `deterministic`."""

    def __init__(self, policy: ActorCritic, deterministic: bool = False) -> None:
        if policy.has_memory:
            raise ConfigError("a policy with memory can't play games for two yet: take a model without memory")
        self.policy = policy
        self._act = policy.acting(deterministic)

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """One pass of the network for all n."""
        action, _, _ = self._act(self.policy.prepare(observation))
        moves: np.ndarray = self.policy.actions.to_environment(action)
        return moves


class OpponentPool:
    """Whom a learner meets, drawn anew for each game: itself, one of its latest frozen copies, or a random player."""

    def __init__(self, policy: ActorCritic, options: SelfPlay, seed: int | None = None) -> None:
        self.learner, self.options = PolicyPlayer(policy), options
        self.past: deque[PolicyPlayer] = deque(maxlen=options.pool)
        self.seed(seed)

    def seed(self, seed: int | None) -> None:
        """What is drawn from here on, and the random player's moves."""
        self.random = RandomPlayer(seed)
        self._lots = np.random.default_rng(seed)

    def draw(self) -> Player:
        """The opponent of a game; `learner` for the learner itself."""
        lot = self._lots.random()
        if lot < self.options.random_share:
            return self.random
        if lot < self.options.random_share + self.options.past_share and self.past:
            return self.past[self._lots.integers(len(self.past))]
        return self.learner

    def take(self, iteration: int) -> None:
        """After an iteration: a copy of the policy as it is now, if it is time for one; the oldest goes."""
        if iteration % self.options.snapshot_every == 0:
            self.past.append(_frozen(self.learner.policy))

    def state(self) -> dict[str, Tensor]:
        """The weights of all copies: `<index>/<name>` → tensor. They never change."""
        return weights_of(self.past)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        self.past.clear()
        self.past.extend(self.players(state))

    def players(self, state: Mapping[str, Tensor]) -> list[PolicyPlayer]:
        """Copies of the learner with weights that `weights_of` gave."""
        weights: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            index, name = key.split("/", 1)
            weights.setdefault(int(index), {})[name] = tensor
        made = [(_frozen(self.learner.policy), tensors) for _, tensors in sorted(weights.items())]
        for player, tensors in made:
            player.policy.load_state_dict(tensors)
        return [player for player, _ in made]

    @property
    def generators(self) -> dict[str, np.random.Generator]:
        """What opponents, and the random player's moves, are drawn from."""
        return {"lots": self._lots, "random": self.random.generator}


def by_player(players: Iterable[Any]) -> dict[Any, np.ndarray]:
    """Who moves at each table → the tables of each player, in the order of their first."""
    tables: dict[Any, list[int]] = {}
    for table, player in enumerate(players):
        tables.setdefault(player, []).append(table)
    return {player: np.asarray(found) for player, found in tables.items()}


def weights_of(players: Iterable[PolicyPlayer]) -> dict[str, Tensor]:
    """The weights of players, `<index>/<name>` → tensor: those that they play with, no copies."""
    states = [player.policy.state_dict() for player in players]
    return {f"{i}/{name}": tensor.detach() for i, state in enumerate(states) for name, tensor in state.items()}


def _frozen(policy: ActorCritic) -> PolicyPlayer:
    return PolicyPlayer(copy.deepcopy(policy).requires_grad_(False).eval())
