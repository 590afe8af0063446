"""The stepping core: N environments, what they show, what is legal, where episodes begin, and what a step led to.

In: a policy's actions. Out: the steps as a policy may learn from them or be judged by them, alike in every mode of
autoreset; whoever plays in a vector of environments (rollouts, judgements, recordings, films, skills) plays through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from policysmith.errors import EnvironmentFailure
from policysmith.policy.actor_critic import ActorCritic
from policysmith.training.environments.autoreset import resets_next_step, restarter, self_resetting
from policysmith.training.environments.legal import LegalRows
from policysmith.training.nonfinite.events import NonFinite, NonFiniteOptions, check_events
from policysmith.training.nonfinite.finite_steps import FiniteSteps, VectorStep
from policysmith.training.rollout.conversion import preparer

__all__ = ["EndedEpisode", "Move", "Playing", "Stepped", "Stepping", "actor_of"]

LONGEST = 200_000  # steps of an episode that is played to its end: who judges would wait forever


class EndedEpisode(NamedTuple):
    """An episode that ended by itself: its row, its return (undiscounted) and its length in steps."""

    row: int
    episode_return: float
    length: int


class Stepped(NamedTuple):
    """What a step of N environments led to. `done` marks episodes that ended, `live` steps that were none of a reset.

    `out` is None, or marks rows to be left out for a number that is not finite, `begun` rows begun anew for one.
    `ended` are the episodes that count.
    """

    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    done: np.ndarray
    live: np.ndarray
    out: np.ndarray | None
    begun: np.ndarray | None
    ended: list[EndedEpisode]


class Stepping:
    """Steps a vector of environments, and knows where each of its episodes stands.

    `observation` and `info` are what it shows now, `first` (N,) marks rows whose episode begins with that. Under
    next-step autoreset `resets` marks rows whose next step is spent on the reset; in the other modes none is.
    """

    def __init__(self, policy: ActorCritic, environments: VectorEnv, seed: int | None = None, step: int = 0) -> None:
        self.policy, self.environments = policy, self_resetting(environments)
        self.count, self.next_step = environments.num_envs, resets_next_step(self.environments)
        self._finite = FiniteSteps(policy, self.count, self.next_step, restarter(self.environments))
        self._legal = LegalRows(policy)
        observation, info = self.environments.reset(seed=seed)
        self.observation, self.info = self._finite.begin(observation, info, step)
        self.returns, self.lengths = np.zeros(self.count), np.zeros(self.count, dtype=np.int64)
        self.over, self.first = np.zeros(self.count, dtype=bool), np.ones(self.count, dtype=bool)
        self._all = np.ones(self.count, dtype=bool)

    @property
    def mask(self) -> Any:
        """Legal masks (N, …) beside the observation, None where there are none."""
        return self._legal.mask(self.observation, self.info, self.over if self.next_step else None)

    def step(self, actions: Any, step: int) -> Stepped:
        """One step of every environment; `step` counts the steps by then: the place of what is not finite."""
        seen = self._finite.look(VectorStep(*self.environments.step(actions)), self.over, step)
        live = ~self.over if self.next_step else self._all
        self.observation, self.info = seen.observation, seen.info
        done, ended = self._count(seen)
        return Stepped(seen.reward, seen.terminated, seen.truncated, done, live, seen.out, seen.begun, ended)

    def final(self, row: int) -> Any:
        """The observation that an episode had come to when it ended with the latest step."""
        if self.next_step:
            return _row(self.observation, row)
        return self.info["final_obs"][row]

    def final_info(self) -> Mapping[str, Any]:
        """What environments told beside the ends of episodes in the latest step."""
        return self.info if self.next_step else self.info.get("final_info") or {}

    def met(self) -> list[NonFinite]:
        """What was met since that was not finite; environments that met nothing begin to count anew."""
        return self._finite.taken()

    def require_finite(self, most: int = NonFiniteOptions.max) -> None:
        """Raise `NonFiniteError` where an environment gave numbers that are not finite so many times in a row."""
        check_events(self._finite.events, most)
        self._finite.events.clear()

    def state(self) -> dict[str, Tensor]:
        """Where the episodes stand; where the environments do is not in it."""
        arrays = {"returns": self.returns, "lengths": self.lengths, "ended": self.over, "begins": self.first}
        arrays |= self._finite.state()
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def load_state(self, state: Mapping[str, Tensor], observation: Any, info: dict[str, Any]) -> None:
        """Go on where `state` was given, with environments that show this."""
        self.observation, self.info = observation, info
        self.returns, self.lengths = state["returns"].numpy().copy(), state["lengths"].numpy().copy()
        self.over, self.first = state["ended"].numpy().copy(), state["begins"].numpy().copy()
        self._finite.load_state(state["lost"].numpy(), state["in_a_row"].numpy())

    def standing(self, state: Mapping[str, Tensor]) -> list[tuple[bool, int, float | None]]:
        """Of each environment, by a `state`: whether its next step is a reset, its episode's steps, and its return.

        The return is None after the episode's end, when it counts no longer.
        """
        ended = state["ended"].tolist() if self.next_step else [False] * self.count
        told = zip(ended, state["lengths"].tolist(), state["returns"].tolist(), strict=True)
        return [(over, steps, None if over else total) for over, steps, total in told]

    def _count(self, seen: VectorStep) -> tuple[np.ndarray, list[EndedEpisode]]:
        """Episodes that are done, and of them those that count: in the others numbers were left out."""
        done, ended = seen.done, []
        self.returns += seen.reward
        self.lengths += 1
        if self.next_step:
            self.returns[self.over] = 0.0
            self.lengths[self.over] = 0
        if np.count_nonzero(done):  # a third of what any() takes
            told = done if seen.out is None else done & ~seen.out
            ended = [EndedEpisode(int(i), float(self.returns[i]), int(self.lengths[i])) for i in np.flatnonzero(told)]
            self._finite.regular(told)
            self.returns[done] = 0.0
            self.lengths[done] = 0
        self.first = self.over if self.next_step else done
        self.over = done
        if seen.begun is not None:
            self.returns[seen.begun], self.lengths[seen.begun] = 0.0, 0
            self.first = self.first | seen.begun
        return done, ended


class Move(NamedTuple):
    """A step of a policy that plays: what it was shown, as tensors, what was legal, and its actions for the step."""

    observation: Any
    prepared: Any
    mask: Any
    actions: Any
    stepped: Stepped


class Playing(Stepping):
    """A policy that plays in a vector of environments, and learns nothing: to be judged, filmed or recorded.

    `choose` replaces its choice: (prepared observation, mask, chosen actions) → actions.
    """

    def __init__(
        self,
        policy: ActorCritic,
        environments: VectorEnv,
        deterministic: bool,
        seed: int | None = None,
        choose: Callable[[Any, Any, Any], Any] | None = None,
    ) -> None:
        super().__init__(policy, environments, seed)
        self._act, self._choose = actor_of(policy, self.count, deterministic), choose
        self._prepare, self.played = preparer(policy), 0

    def move(self) -> Move:
        """One step of every environment. Raises `NonFiniteError` as training does, and for an episode without end."""
        observation, mask = self.observation, self.mask
        prepared = self._prepare(observation)
        chosen = self._act(prepared, mask, self.first)
        if self._choose is not None:
            chosen = self._choose(prepared, mask, chosen)
        actions = self.policy.actions.to_environment(chosen)
        self.played += self.count
        stepped = self.step(actions, self.played)
        self.require_finite()
        if self.lengths.max() >= LONGEST:
            raise EnvironmentFailure(
                f"an episode has no end after {LONGEST:,} steps: give the environment a time limit, by the wrapper "
                "TimeLimit, or by max_episode_steps where it is registered"
            )
        return Move(observation, prepared, mask, actions, stepped)


def actor_of(policy: ActorCritic, count: int, deterministic: bool) -> Callable[[Any, Any, np.ndarray], Any]:
    """(observation, mask, rows whose episode begins) → action; a policy's memory is carried from call to call."""
    act: Callable[..., Any] = policy.acting(deterministic)
    if not policy.has_memory:
        return lambda observation, mask, first: act(observation, mask)[0]
    state = policy.init_state(count)

    def remember_and_act(observation: Any, mask: Any, first: np.ndarray) -> Any:
        nonlocal state
        action, _, _, state = act(observation, state, torch.as_tensor(first, device=policy.device), mask)
        return action

    return remember_and_act


def _row(observation: Any, row: int) -> Any:
    if isinstance(observation, Mapping):
        return {key: _row(below, row) for key, below in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_row(below, row) for below in observation)
    return observation[row]
