"""Collecting experience: a policy acts in a vector of environments. T steps, N environments.

What a step gives is kept as it comes and stacked once at the end: per-step copies cost more than the network here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from policysmith.ops.reset_state import State
from policysmith.policy.actor_critic import ActorCritic
from policysmith.training.rollout.conversion import action_writer, preparer
from policysmith.training.rollout.rollout import Episode, Rollout
from policysmith.training.rollout.stepping import EndedEpisode, Stepped, Stepping

__all__ = ["Collector", "MemoryCollector", "RecordedSteps"]

MEMORY = "memory/"


@dataclass
class RecordedSteps:
    """What the steps of one rollout gave, as it came; `first` and the two of states only for policies with memory."""

    acted: list[tuple[Any, Any, Any, Tensor, Tensor]] = field(default_factory=list)
    stepped: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    finals: list[tuple[int, int, Any]] = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)
    scores: list[tuple[int, int, float]] = field(default_factory=list)
    first: list[Tensor] = field(default_factory=list)
    states: dict[int, State] = field(default_factory=dict)
    final_states: list[State] = field(default_factory=list)
    skipped: list[tuple[int, np.ndarray]] = field(default_factory=list)


class Collector:
    """Steps a vector environment with a policy, across rollouts; `step` counts transitions of all environments."""

    def __init__(self, policy: ActorCritic, environments: VectorEnv, seed: int | None = None, step: int = 0) -> None:
        self.policy, self.step = policy, step
        self.stepping = Stepping(policy, environments, seed, step)
        self.environments, self.count = self.stepping.environments, self.stepping.count
        self._prepare = preparer(policy)

    def collect(self, steps: int) -> Rollout:
        """`steps` steps of every environment with the policy as it is now."""
        record, stepping = RecordedSteps(), self.stepping
        act = self._actor(record)
        to_environment = action_writer(self.policy)
        for t in range(steps):
            obs, mask = self._prepare(stepping.observation), stepping.mask
            action, log_prob, value = act(obs) if mask is None else act(obs, mask)
            record.acted.append((obs, mask, action, log_prob, value))
            self.step += self.count
            self._take(t, stepping.step(to_environment(action), self.step), record)
        return self._stack(record)

    def _take(self, t: int, stepped: Stepped, record: RecordedSteps) -> None:
        """Note what step `t` led to."""
        record.stepped.append((stepped.reward, stepped.terminated, stepped.done, stepped.live))
        if stepped.out is not None:
            record.skipped.append((t, stepped.out))
        if not self.stepping.next_step and np.count_nonzero(stepped.truncated):  # a third of what any() takes
            rows = stepped.truncated if stepped.out is None else stepped.truncated & ~stepped.out
            self._cut_off(record, t, np.flatnonzero(rows))
        if stepped.ended:
            record.episodes += [Episode(self.step, e.episode_return, e.length) for e in stepped.ended]
            record.scores += [(t, row, score) for row, score in self._final_scores(stepped.ended)]

    @property
    def seen(self) -> tuple[Any, dict[str, Any]]:
        """What the environments last showed: observations, and what they tell beside."""
        return self.stepping.observation, self.stepping.info

    def state(self) -> dict[str, Tensor]:
        """Where the episodes stand between two rollouts; where the environments do is not in it."""
        return self.stepping.state()

    def load_state(self, state: Mapping[str, Tensor], observation: Any, info: dict[str, Any]) -> None:
        """Go on where `state` was given, with environments that show this."""
        self.stepping.load_state(state, observation, info)

    def standing(self, state: Mapping[str, Tensor]) -> list[tuple[bool, int, float | None]]:
        """Of each environment, by a `state`: whether its next step is a reset, its episode's steps, and its return."""
        return self.stepping.standing(state)

    def _actor(self, record: RecordedSteps) -> Callable[..., tuple[Any, Tensor, Tensor]]:
        """What chooses: (obs, mask=None) → (action, or draw where it is squashed, log_prob, value)."""
        return self.policy.drawing() if self.policy.actions.squashed else self.policy.acting()

    def _cut_off(self, record: RecordedSteps, t: int, rows: np.ndarray) -> None:
        """Note the last observations of episodes that a time limit ended at step `t`."""
        record.finals += [(t, row, self.stepping.final(row)) for row in rows.tolist()]

    def _final_scores(self, ended: Sequence[EndedEpisode]) -> list[tuple[int, float]]:
        """(environment, score) of those just ended whose info tells a score."""
        info = self.stepping.final_info()
        if "score" not in info:
            return []
        told = info.get("_score", np.ones(self.count, dtype=bool))
        return [(e.row, float(info["score"][e.row])) for e in ended if told[e.row]]

    @torch.no_grad()
    def _stack(self, record: RecordedSteps) -> Rollout:
        policy, device = self.policy, self.policy.device
        observations, masks, chosen, log_probs, values = zip(*record.acted, strict=True)
        rewards, terminated, done, valid = zip(*record.stepped, strict=True)
        read, leaves = policy.observations.read, policy.actions.leaves_of
        values_TN = torch.stack(values)
        skipped, done_TN = _skipped(record.skipped, np.stack(done))
        valid_TN = np.stack(valid) if self.stepping.next_step else None
        if skipped is not None:
            valid_TN = ~skipped if valid_TN is None else valid_TN & ~skipped
        drawn = [torch.stack(leaf) for leaf in zip(*map(leaves, chosen), strict=True)]
        squashed = policy.actions.squashed
        return Rollout(
            observations=[torch.stack(leaf) for leaf in zip(*map(read, observations), strict=True)],
            actions=leaves(policy.actions.action_of(policy.actions.structure(drawn))) if squashed else drawn,
            draws=drawn if squashed else None,
            masks=self._stack_masks(observations, masks),
            log_probs=torch.stack(log_probs),
            values=values_TN,
            next_values=self._next_values(values_TN, record),
            rewards=_floats(rewards, device),
            terminated=_floats(terminated, device),
            done=_floats(done_TN, device),
            valid=None if valid_TN is None else torch.as_tensor(valid_TN, device=device),
            episodes=record.episodes,
            scores=_sparse(record.scores, values_TN) if record.scores else None,
            skipped=None if skipped is None else torch.as_tensor(skipped, device=device),
            nonfinite=self.stepping.met(),
        )

    def _next_values(self, values_TN: Tensor, record: RecordedSteps) -> Tensor:
        """Values of the states that steps led to: the next step's, or the final observation's where it was cut off."""
        next_values = torch.cat([values_TN[1:], self._last_value()[None]])
        if record.finals:
            rows, columns, observations = zip(*record.finals, strict=True)
            next_values[list(rows), list(columns)] = self._final_values(record, _batch(list(observations)))
        return next_values

    def _last_value(self) -> Tensor:
        """(N,) the value of where the rollout stopped."""
        return self.policy.get_value(self._prepare(self.stepping.observation))

    def _final_values(self, record: RecordedSteps, observations: Any) -> Tensor:
        """The values of final observations."""
        return self.policy.get_value(self.policy.prepare(observations))

    def _stack_masks(self, observations: Sequence[Any], masks: Sequence[Any]) -> list[Tensor]:
        """A mask for each discrete leaf, (T, N, …); of steps that had none, where others have one, all is legal."""
        policy = self.policy
        steps = [
            policy._masks(obs, policy.observations.read(obs), mask)
            for obs, mask in zip(observations, masks, strict=True)
        ]
        known = next((leaves for leaves in steps if leaves), [])
        every = [torch.ones_like(leaf) for leaf in known]
        filled = [[leaf.expand(self.count, -1) for leaf in leaves or every] for leaves in steps]
        return [torch.stack(leaf) for leaf in zip(*filled, strict=True)]


class MemoryCollector(Collector):
    """A collector for a policy with memory: it carries the state from step to step, and over rollouts.

    `keep` names the steps of a rollout whose state before them is wanted.
    """

    def __init__(
        self,
        policy: ActorCritic,
        environments: VectorEnv,
        seed: int | None = None,
        step: int = 0,
        keep: Collection[int] = (0,),
    ) -> None:
        super().__init__(policy, environments, seed, step)
        self._keep = frozenset(keep)
        self._state = {key: tensor.detach() for key, tensor in policy.init_state(self.count).items()}

    def state(self) -> dict[str, Tensor]:
        """With what the policy remembers."""
        return {**super().state(), **{MEMORY + key: tensor.clone() for key, tensor in self._state.items()}}

    def load_state(self, state: Mapping[str, Tensor], observation: Any, info: dict[str, Any]) -> None:
        """With what the policy remembered."""
        super().load_state(state, observation, info)
        self._state = {key: state[MEMORY + key].to(tensor.device) for key, tensor in self._state.items()}

    def _actor(self, record: RecordedSteps) -> Callable[..., tuple[Any, Tensor, Tensor]]:
        act, device = self.policy.drawing(), self.policy.device

        def remember_and_act(obs: Any, mask: Any = None) -> tuple[Any, Tensor, Tensor]:
            t = len(record.first)
            first = torch.as_tensor(self.stepping.first, device=device)
            if t in self._keep:
                record.states[t] = self._state
            record.first.append(first)
            action, log_prob, value, self._state = act(obs, self._state, first, mask)
            return action, log_prob, value

        return remember_and_act

    def _cut_off(self, record: RecordedSteps, t: int, rows: np.ndarray) -> None:
        super()._cut_off(record, t, rows)
        record.final_states += [{key: tensor[int(i)] for key, tensor in self._state.items()} for i in rows]

    def _stack(self, record: RecordedSteps) -> Rollout:
        rollout = super()._stack(record)
        rollout.first = torch.stack(record.first)
        # Clones: what inference mode made can't enter a graph of gradients.
        rollout.states = {t: {k: v.clone() for k, v in state.items()} for t, state in record.states.items()}
        return rollout

    def _last_value(self) -> Tensor:
        first = torch.as_tensor(self.stepping.first, device=self.policy.device)
        return self.policy.get_value(self._prepare(self.stepping.observation), self._state, first)

    def _final_values(self, record: RecordedSteps, observations: Any) -> Tensor:
        states = record.final_states
        state = {key: torch.stack([s[key] for s in states]) for key in states[0]}
        return self.policy.get_value(self.policy.prepare(observations), state)


def _skipped(found: Sequence[tuple[int, np.ndarray]], done_TN: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """(T, N) the steps left out, None where there are none; and which steps end a trace of advantages.

    A trace ends before a step that is left out, and the value of where it stands counts for the rest: nothing of what
    is left out reaches the steps before it.
    """
    if not found:
        return None, done_TN
    skipped = np.zeros_like(done_TN)
    for t, rows in found:
        skipped[t] = rows
    done_TN = done_TN | skipped
    done_TN[:-1] |= skipped[1:]
    return skipped, done_TN


def _floats(arrays: Sequence[np.ndarray] | np.ndarray, device: torch.device) -> Tensor:
    return torch.as_tensor(np.asarray(arrays, dtype=np.float32), device=device)


def _sparse(entries: Sequence[tuple[int, int, float]], like: Tensor) -> Tensor:
    """(T, N): the entries (t, n, value), NaN elsewhere."""
    table = torch.full_like(like, float("nan"))
    times, columns, values = zip(*entries, strict=True)
    table[list(times), list(columns)] = torch.tensor(values, dtype=like.dtype, device=like.device)
    return table


def _batch(observations: list[Any]) -> Any:
    """Single observations of one structure → one structure of arrays with a batch axis."""
    first = observations[0]
    if isinstance(first, dict):
        return {key: _batch([o[key] for o in observations]) for key in first}
    if isinstance(first, tuple):
        return tuple(_batch([o[i] for o in observations]) for i in range(len(first)))
    return np.stack(observations)
