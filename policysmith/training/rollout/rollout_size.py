"""Whether the rollouts and the environments of a training have room, told before either is made."""

from __future__ import annotations

from typing import Any

from policysmith.config.limits import Limits
from policysmith.errors import ConfigError, Problem
from policysmith.graph.plan import Plan
from policysmith.training.sections import Environment

__all__ = ["check_room"]

STEP_BYTES = 5 * 4  # a step's log-probability, value, next value, reward, and at least one number of its action
# Of a worker process of an environment: well below what an interpreter with NumPy takes for itself alone.
PROCESS_BYTES = 8 << 20


def check_room(trainer: Any, environment: Environment, plan: Plan, limits: Limits) -> None:
    """Raise `ConfigError` where one rollout has no room, or under `async` a process for each environment.

    Trainers without `rollout_steps` keep no rollouts. What is counted is the least that is needed.
    """
    problems = []
    count, steps = environment.num_envs, getattr(trainer, "rollout_steps", None)
    row = sum(spec.bytes for spec in plan.inputs.values()) + STEP_BYTES
    if isinstance(steps, int) and (problem := limits.memory_problem(row * count * steps, "one rollout")):
        problems.append(Problem("training.rollout_steps", f"{steps:,} steps of {count:,} environments: it {problem}"))
    processes = PROCESS_BYTES * count if environment.vectorization == "async" else 0
    if problem := limits.memory_problem(processes, "their processes"):
        problems.append(Problem("environment.num_envs", f"{count:,} environments: it {problem}"))
    if problems:
        raise ConfigError(problems)
