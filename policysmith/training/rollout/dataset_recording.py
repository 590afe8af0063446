"""Recording: a policy plays whole episodes, and what happened becomes a dataset. N environments.

In: a policy and its environment. Out: episodes, or a directory that holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policysmith.config.experiment import Experiment
from policysmith.errors import ConfigError, Problem
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.observations import MASK
from policysmith.policy.spaces import pick
from policysmith.training.datasets.episodes import ACTION, REWARD, TERMINATED, Episodes, closed
from policysmith.training.datasets.memmap import write_episodes
from policysmith.training.environments.gate import warn_of_unsound
from policysmith.training.environments.make import close_vector, make_vector
from policysmith.training.environments.random_actions import random_actions
from policysmith.training.environments.two_player import is_game
from policysmith.training.process.generators import own_generators
from policysmith.training.process.threads import few_threads
from policysmith.training.rollout.evaluation import MAX_ENVS
from policysmith.training.rollout.stepping import Move, Playing
from policysmith.training.sections import Environment, Evaluation

__all__ = ["record_as_told", "record_dataset", "record_episodes"]


def record_as_told(
    policy: ActorCritic,
    experiment: Experiment,
    directory: str | Path,
    episodes: int,
    random_share: float = 0.0,
    deterministic: bool | None = None,
    seed: int | None = None,
) -> Path:
    """As `record_dataset` in the experiment's environment; what is not given its section `evaluation` says."""
    environment, usual = experiment.find(Environment), experiment.of(Evaluation)
    if environment is None:
        raise ConfigError("the policy's configuration has no environment to record episodes in")
    warn_of_unsound(experiment)
    greedy = usual.deterministic if deterministic is None else deterministic
    chosen = usual.seed if seed is None else seed
    return record_dataset(policy, environment, directory, episodes, random_share, greedy, chosen)


def record_dataset(
    policy: ActorCritic,
    environment: Environment,
    directory: str | Path,
    episodes: int,
    random_share: float = 0.0,
    deterministic: bool = True,
    seed: int = 10_000,
) -> Path:
    """Record episodes and store them, with the policy's configuration as their origin; returns the directory."""
    found = record_episodes(policy, environment, episodes, random_share, deterministic, seed)
    returns = found.returns(1.0)[found.starts]
    origin = {
        "policy": policy.config,
        "random_share": random_share,
        "deterministic": deterministic,
        "seed": seed,
        "mean_return": float(returns.mean()),
    }
    return write_episodes(directory, found, origin)


def record_episodes(
    policy: ActorCritic,
    environment: Environment,
    episodes: int,
    random_share: float = 0.0,
    deterministic: bool = True,
    seed: int = 10_000,
) -> Episodes:
    """`episodes` whole episodes, each environment its share, held in memory until the last has ended.

    `random_share` of the actions are uniformly random legal ones. What was not given to the policy (leaves that it
    excludes) is not recorded. The policy's training mode and the global generators are left as they were; what is drawn
    follows from `seed`, whatever other threads draw meanwhile. An episode with a number that is not finite is left out,
    and another is played for it; ten in a row of one environment raise `NonFiniteError`.
    """
    _check(environment, episodes, random_share)
    was_training = policy.training
    policy.eval()
    try:
        with own_generators(seed, policy.device), few_threads(policy):
            return _Recording(policy, environment, episodes, random_share, deterministic).run(seed)
    finally:
        policy.train(was_training)


def _check(environment: Environment, episodes: int, random_share: float) -> None:
    if is_game(environment):
        message = f"{environment.id} is a game for two, whose episodes can't be recorded as those of one player"
        raise ConfigError([Problem("environment.id", message)])
    if episodes < 1:
        raise ConfigError(f"at least one episode is recorded, found {episodes}")
    if not 0 <= random_share <= 1:
        raise ConfigError(f"the share of random actions is between 0 and 1, found {random_share:g}")


@dataclass
class _Playing:
    """The episode that goes on in one environment: what each step gave, by column."""

    steps: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, name: str, value: Any) -> None:
        self.steps.setdefault(name, []).append(np.array(value))


class _Recording:
    """Environments side by side, and the episodes that have ended in them."""

    def __init__(
        self, policy: ActorCritic, section: Environment, episodes: int, random_share: float, deterministic: bool
    ) -> None:
        self.policy, self.random_share, self.deterministic = policy, random_share, deterministic
        self.count = min(episodes, MAX_ENVS)
        self.environments = make_vector(section, self.count)
        self.quota = np.full(self.count, episodes // self.count) + (np.arange(self.count) < episodes % self.count)
        self.names = [".".join(map(str, (ACTION, *path))) for path in policy.actions.paths]
        self.leaves = policy.observations.leaves
        self.playing = [_Playing() for _ in range(self.count)]
        self.masked: list[Tensor] = []  # masks of which all is legal, from the first step on that had one
        self.ended: list[list[tuple[_Playing, list[np.ndarray]]]] = [[] for _ in range(self.count)]

    def run(self, seed: int) -> Episodes:
        """Play until every environment has its share."""
        try:
            playing = Playing(self.policy, self.environments, self.deterministic, seed, self._chosen)
            while any(len(found) < share for found, share in zip(self.ended, self.quota, strict=True)):
                self._note(playing, playing.move())
        finally:
            close_vector(self.environments)
        return self._episodes()

    def _chosen(self, prepared: Any, mask: Any, chosen: Any) -> Any:
        """Actions, some of them random."""
        if not self.random_share:
            return chosen
        actions = self.policy.actions
        drawn = torch.rand(self.count) < self.random_share
        free = random_actions(actions, self._masks(prepared, mask), self.count)
        pairs = zip(actions.leaves_of(chosen), free, strict=True)
        return actions.structure([_where(drawn, ours.cpu(), theirs) for ours, theirs in pairs])

    def _masks(self, prepared: Any, mask: Any) -> list[Tensor]:
        policy = self.policy
        found = policy._masks(prepared, policy.observations.read(prepared), mask)
        return [part.expand(self.count, -1).cpu() for part in found]

    def _note(self, playing: Playing, move: Move) -> None:
        """Put what a step gave to its episodes. One with a number that is not finite is dropped: another is played."""
        stepped = move.stepped
        rows = np.flatnonzero(stepped.live)
        for name, array in self._columns(move):
            for i in rows:
                self.playing[i].add(name, array[i])
        for i in rows:
            self.playing[i].add(REWARD, np.float32(stepped.reward[i]))
            self.playing[i].add(TERMINATED, bool(stepped.terminated[i]))
        for episode in stepped.ended:
            self._close(episode.row, playing.final(episode.row))
        dropped = stepped.done if stepped.begun is None else stepped.done | stepped.begun
        for i in np.flatnonzero(dropped):
            self.playing[i] = _Playing()

    def _columns(self, move: Move) -> Iterator[tuple[str, np.ndarray]]:
        """(name, rows (N, …)) of what the policy was shown, what it did, and what was legal."""
        actions = self.policy.actions
        for leaf in self.leaves:
            yield leaf.name, pick(move.observation, leaf.path)
        yield from zip(self.names, actions.leaves_of(move.actions), strict=True)
        masks = self._masks(move.prepared, move.mask)
        if masks and not self.masked:
            self.masked = [torch.ones_like(part) for part in masks]
            self._all_legal_before()
        for name, part in zip(self._mask_names(), masks or self.masked, strict=False):
            yield name, part.numpy()

    def _mask_names(self) -> list[str]:
        return [MASK + self.names[index].removeprefix(ACTION) for index in self.policy.actions.discrete]

    def _all_legal_before(self) -> None:
        """The first mask has come: in the steps before it, all was legal."""
        told = [playing for of_one in self.ended for playing, _ in of_one]
        for playing in (*told, *self.playing):
            for name, part in zip(self._mask_names(), self.masked, strict=False):
                if before := playing.steps.get(REWARD):
                    playing.steps[name] = [part[0].numpy()] * len(before)

    def _close(self, i: int, final: Any) -> None:
        """Put an episode aside if it is wanted."""
        if len(self.ended[i]) < self.quota[i]:
            self.ended[i].append((self.playing[i], [np.array(pick(final, leaf.path)) for leaf in self.leaves]))

    def _episodes(self) -> Episodes:
        found = [episode for of_one in self.ended for episode in of_one]
        names = list(dict.fromkeys(name for playing, _ in found for name in playing.steps))
        columns = {name: _joined([playing.steps[name] for playing, _ in found]) for name in names}
        last = {leaf.name: _joined([[last[k] for _, last in found]]) for k, leaf in enumerate(self.leaves)}
        lengths = torch.tensor([len(playing.steps[REWARD]) for playing, _ in found])
        spaces = {"observation_space": self.policy.observations.space, "action_space": self.policy.actions.space}
        return closed(columns, lengths, last, **spaces, place="the recording")


def _where(drawn: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    return torch.where(drawn.reshape(-1, *[1] * (ours.ndim - 1)), theirs.to(ours.dtype), ours)


def _joined(parts: list[list[np.ndarray]]) -> Tensor:
    return torch.from_numpy(np.stack([row for part in parts for row in part]))
