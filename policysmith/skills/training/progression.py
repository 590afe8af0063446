"""Going through a plan: which task each copy is in is part of what the policy sees. N copies, D features.

In: a world that judges tasks. Out: a vector environment whose episodes, for a learner, are tasks: the next task begins
where the last one was done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from policysmith.skills.environments.skill_environment import SkillVectorEnv
from policysmith.skills.training.guard import within

__all__ = ["Attempts", "TaskProgression"]

STEP_SECONDS = 120.0  # of all copies: the first step may compile the world


class Attempts:
    """How tasks and whole plans went lately: for each task that was begun and has ended, whether it was done."""

    def __init__(self, tasks: int, window: int) -> None:
        self.plans: deque[bool] = deque(maxlen=window)
        self.tasks: list[deque[bool]] = [deque(maxlen=window) for _ in range(tasks)]

    def note(self, task: int, done: bool, over: bool) -> None:
        """One step of one copy: it may have done its task, and its episode may be over."""
        if done or over:
            self.tasks[task].append(done)
        if over:
            self.plans.append(done and task == len(self.tasks) - 1)

    @property
    def success_rate(self) -> float:
        """Of whole plans; 0 before the first has ended."""
        return float(np.mean(self.plans)) if self.plans else 0.0

    def scores(self, task_to_skill: Sequence[int]) -> dict[int, float]:
        """By expert: of its tasks that were begun, the share that was done. Experts that never began are left out."""
        ended: dict[int, list[bool]] = {}
        for skill, results in zip(task_to_skill, self.tasks, strict=True):
            ended.setdefault(skill, []).extend(results)
        return {skill: float(np.mean(results)) for skill, results in ended.items() if results}


class TaskProgression(VectorEnv):
    """Observations `{observation (N, D), task (N,)}`, where `task` is the expert that acts.

    A task that is done ends a learner's episode (`terminated`): it has a horizon of its own. The environment starts
    anew when the plan is done, or when it has ended itself. `attempts` says how the latest `window` plans went; with
    `quota` the i-th copy adds no more than `quota[i]` of them, so that short ones are not favoured.
    """

    def __init__(
        self,
        world: SkillVectorEnv,
        task_to_skill: Sequence[int],
        num_experts: int,
        window: int = 100,
        quota: Sequence[int] | None = None,
    ) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "reset_mask": True}
        self.world, self.num_envs = world, world.count
        self.experts = np.array(task_to_skill, dtype=np.int64)
        self.attempts = Attempts(len(task_to_skill), window)
        self.quota = None if quota is None else list(quota)
        self.tasks = np.zeros(world.count, dtype=np.int64)
        self.single_observation_space = spaces.Dict(
            {"observation": world.observation_space, "task": spaces.Discrete(num_experts)}
        )
        self.single_action_space = world.action_space

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Every copy anew, in its first task; with `options={"reset_mask": (N,)}` only those marked."""
        mask = (options or {}).get("reset_mask")
        if mask is None:
            self.tasks[:] = 0
            self._observations = self.world.reset(seed)
        else:
            self.tasks = np.where(mask, 0, self.tasks)
            self._observations = self._restarted(self._observations, np.flatnonzero(mask))
        return self._seen(self._observations), {}

    def step(self, actions: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of every copy; what has ended starts anew at once, and `final_obs` holds where it had come to."""
        began = self.tasks
        with within(STEP_SECONDS, "a step of the environments"):
            step = self.world.step(np.asarray(actions), began)
        self.tasks = began + step.task_done
        over = step.terminated | step.truncated | (self.tasks == len(self.experts))
        self._note(began, step.task_done, over)
        terminated = step.task_done | step.terminated
        truncated = step.truncated & ~terminated
        info = {"final_obs": self._final(step.observations, began, truncated)} if truncated.any() else {}
        observations = step.observations
        if over.any():
            rows = np.flatnonzero(over)
            self.tasks[rows] = 0
            observations = self._restarted(observations, rows)
        self._observations = observations
        return self._seen(observations), step.rewards, terminated, truncated, info

    def close(self, **options: Any) -> None:
        """Free the copies."""
        self.world.close()

    def _note(self, tasks: np.ndarray, done: np.ndarray, over: np.ndarray) -> None:
        for row in np.flatnonzero(done | over).tolist():
            if self.quota is None or self.quota[row] > 0:
                self.attempts.note(int(tasks[row]), bool(done[row]), bool(over[row]))
            if self.quota is not None:
                self.quota[row] -= bool(over[row])

    def _restarted(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The observations after these copies began anew."""
        observations = observations.copy()
        observations[rows] = self.world.restart(rows)
        return observations

    def _seen(self, observations: np.ndarray) -> dict[str, np.ndarray]:
        return {"observation": observations, "task": self.experts[self.tasks]}

    def _final(self, observations: np.ndarray, tasks: np.ndarray, rows: np.ndarray) -> np.ndarray:
        final = np.full(self.num_envs, None, dtype=object)
        for row in np.flatnonzero(rows):
            final[row] = {"observation": observations[row], "task": self.experts[tasks[row]]}
        return final
