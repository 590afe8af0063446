"""Watching the steps of a vector of environments: those with numbers that are not finite end their episode there.

In: what a vector of N environments gives. Out: the same with every number finite, and which rows are not to be used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from policysmith.policy.actor_critic import ActorCritic
from policysmith.training.nonfinite.events import NonFinite
from policysmith.training.nonfinite.finite_rows import (
    all_finite,
    bad_rows,
    blanked,
    first_bad,
    float_leaves,
)

__all__ = ["FiniteSteps", "Restart", "VectorStep"]

Restart = Callable[[np.ndarray, Mapping[str, Any]], tuple[Any, dict[str, Any]]]


class VectorStep(NamedTuple):
    """One step of N environments. `out` marks rows to be left out, `begun` those whose episode begins with this
    observation because the one before was ended here.
    """

    observation: Any
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    info: dict[str, Any]
    out: np.ndarray | None = None
    begun: np.ndarray | None = None

    @property
    def done(self) -> np.ndarray:
        """(N,) episodes that ended by themselves."""
        return self.terminated | self.truncated


class FiniteSteps:
    """Looks at every step. A row is left out whose reward is not finite, or that led to an observation which is not:
    its episode ends there, and the environment begins anew.

    Where an environment can't be begun anew alone, it is stepped on, and its rows are left out until its episode ends
    by itself. A policy is never shown a number that is not finite: such observations are zeros, in rows left out.
    `events` holds what was met. `restart` begins rows (N,) anew, given the info of the step before, where it can be
    done: observations and info of all.
    """

    def __init__(self, policy: ActorCritic, count: int, next_step: bool, restart: Restart | None) -> None:
        self._leaves, self._restart = float_leaves(policy), restart
        self._next_step, self.count = next_step, count
        self._plain = self._leaves[0].path == () if self._leaves else False
        self.lost: np.ndarray | None = None
        """(N,) rows whose present observation is not to be used; None where all are."""
        self.events: list[NonFinite] = []
        self._in_a_row = np.zeros(self.count, dtype=np.int64)

    def begin(self, observation: Any, info: dict[str, Any], step: int = 0) -> tuple[Any, dict[str, Any]]:
        """After all environments were reset, `step` steps into the training."""
        none = np.zeros(self.count, dtype=bool)
        seen = VectorStep(observation, np.zeros(self.count), none, none, info)
        if not self._finite(observation, seen.reward):
            seen = self._anew(seen, self._note_observation(observation, ~none, step), step)
        return seen.observation, seen.info

    def look(self, seen: VectorStep, ended: np.ndarray, step: int) -> VectorStep:
        """The step as it may be used. `ended` marks episodes that were over before it, `step` counts up to it."""
        finals = None if self._next_step else self._bad_finals(seen)
        if finals is None and self.lost is None and self._finite(seen.observation, seen.reward):
            return seen
        return self._left_out(seen, ended, finals, step)

    def regular(self, rows: np.ndarray) -> None:
        """Episodes of these rows (N,) ended by themselves: what comes is not in a row with what was."""
        self._in_a_row[rows] = 0

    def taken(self) -> list[NonFinite]:
        """What was met in a rollout; environments that met nothing in it begin to count anew."""
        events, self.events = self.events, []
        met = {event.environment for event in events}
        self._in_a_row[[row for row in range(self.count) if row not in met]] = 0
        return events

    def state(self) -> dict[str, np.ndarray]:
        """What is remembered from step to step, as copies."""
        lost = np.zeros(self.count, dtype=bool) if self.lost is None else self.lost
        return {"lost": lost.copy(), "in_a_row": self._in_a_row.copy()}

    def load_state(self, lost: np.ndarray, in_a_row: np.ndarray) -> None:
        """Take up what `state` gave."""
        self.lost, self._in_a_row = lost.copy() if lost.any() else None, in_a_row.copy()

    def _finite(self, observation: Any, reward: np.ndarray) -> bool:
        """Whether all is surely finite: the one test of a step, about 2 µs an array."""
        if self._plain:
            return all_finite(observation) and all_finite(reward)
        return all_finite(reward) and all(all_finite(leaf.of(observation)) for leaf in self._leaves)

    def _bad_finals(self, seen: VectorStep) -> np.ndarray | None:
        """(N,) rows that a time limit ended at an observation that is not finite; None where there are none."""
        if not self._leaves or not np.count_nonzero(seen.truncated):  # a third of what any() takes
            return None
        rows = np.zeros(self.count, dtype=bool)
        for row in np.flatnonzero(seen.truncated & ~seen.terminated).tolist():
            final = seen.info["final_obs"][row]
            rows[row] = any(bad_rows(np.asarray(leaf.of(final))[None]).any() for leaf in self._leaves)
        return rows if rows.any() else None

    def _left_out(self, seen: VectorStep, ended: np.ndarray, finals: np.ndarray | None, step: int) -> VectorStep:
        none = np.zeros(self.count, dtype=bool)
        resets = ended if self._next_step else none  # steps that were spent on a reset
        begins = resets if self._next_step else seen.done  # observations that begin an episode
        out = np.zeros(self.count, dtype=bool) if self.lost is None else self.lost.copy()
        fresh, done = ~out, seen.done
        bad_reward = bad_rows(seen.reward) & ~resets
        for row in np.flatnonzero(bad_reward & fresh).tolist():
            self._note(row, "reward", float(seen.reward[row]), step)
        # An observation after the end of an episode by itself is not used, nor is one that a row left out led to.
        led = fresh & ~bad_reward & ~begins & ~seen.terminated
        bad = self._note_observation(seen.observation, led | begins, step)
        out |= bad_reward | (bad & ~begins)
        if finals is not None:
            for row in np.flatnonzero(finals & fresh & ~bad_reward).tolist():
                self._note_final(row, seen.info["final_obs"][row], step)
            out |= finals
        again = (out & ~done & ~resets) | (bad & begins)
        reward = np.where(bad_reward, 0.0, seen.reward)
        return self._anew(seen._replace(reward=reward, out=out), again, step)

    def _anew(self, seen: VectorStep, rows: np.ndarray, step: int) -> VectorStep:
        """Begin these environments (N,) anew where that can be done; what is no good after it is lost, and blanked."""
        begun, lost = np.zeros(self.count, dtype=bool), rows
        if rows.any() and self._restart is not None:
            observation, info = self._restart(rows, seen.info or {})
            seen = seen._replace(observation=observation, info=info)
            begun, lost = rows, self._note_observation(observation, rows, step)
        bad = self._bad_observations(seen.observation)
        if bad.any():
            seen = seen._replace(observation=blanked(seen.observation, bad, self._leaves))
        lost = lost | bad
        self.lost = lost if lost.any() else None
        return seen._replace(begun=begun)

    def _bad_observations(self, observation: Any) -> np.ndarray:
        bad = np.zeros(self.count, dtype=bool)
        for leaf in self._leaves:
            bad |= bad_rows(leaf.of(observation))
        return bad

    def _note_observation(self, observation: Any, rows: np.ndarray, step: int) -> np.ndarray:
        """Which of these rows (N,) have an observation that is not finite; the first leaf of each is noted."""
        found = np.zeros(self.count, dtype=bool)
        for leaf in self._leaves:
            array = leaf.of(observation)
            bad = bad_rows(array) & rows & ~found
            for row in np.flatnonzero(bad).tolist():
                self._note(row, leaf.name, first_bad(array[row]), step)
            found |= bad
        return found

    def _note_final(self, row: int, final: Any, step: int) -> None:
        for leaf in self._leaves:
            array = np.asarray(leaf.of(final))
            if bad_rows(array[None]).any():
                self._note(row, f"final {leaf.name}", first_bad(array), step)
                return

    def _note(self, row: int, leaf: str, found: float, step: int) -> None:
        self._in_a_row[row] += 1
        self.events.append(NonFinite(step, row, leaf, found, int(self._in_a_row[row])))
