"""From a module's tasks to what a training loop asks for: rewards, completion, and which expert acts in which task.

In: a checked module, or, in the process that has executed one, its functions by name. Out: functions of a task's index,
and the experts' indices.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from policysmith.errors import SkillError
from policysmith.skills.modules.module_file import KINDS, NAME, SkillModule
from policysmith.skills.sandbox.running import SkillFunction

__all__ = ["TaskFunctions", "task_and_reward_funcs", "task_to_skill"]

Functions = Mapping[str, Callable[..., Any]]
Explain = Callable[[Exception], tuple[str, str]]


class TaskFunctions(NamedTuple):
    """What `task_and_reward_funcs` gives.

    `reward(task, features)` is the reward of the present task; `is_done(task, features)` what its function says, which
    may be an array, and `completion(task, features)` whether that is so and the task that follows. The task after the
    last gives no reward and is never done. `common_heads` are the experts
    0 … `num_common_heads` - 1, and `task_to_skill_index[task]` says which of them acts.
    """

    reward: Callable[[int, Mapping[str, Any]], Any]
    is_done: Callable[[int, Mapping[str, Any]], Any]
    completion: Callable[[int, Mapping[str, Any]], tuple[bool, int]]
    common_heads: list[int]
    num_common_heads: int
    task_to_skill_index: list[int]


def task_to_skill(module: SkillModule | Functions) -> list[int]:
    """The expert of each task, in the order of the tasks' numbers.

    Functions are called, so pass them only where their code may run. Raises `SkillError` for a plan with gaps.
    """
    if isinstance(module, SkillModule):
        return [task.network_number for task in module.tasks]
    numbers = [triple["network_number"]() for triple in _triples(module)]
    for task, number in enumerate(numbers):
        if type(number) is not int or number < 0:
            raise SkillError(f"task_{task}_network_number gave {number!r}; expected a whole number ≥ 0")
    return numbers


def task_and_reward_funcs(module: Functions, explain: Explain | None = None) -> TaskFunctions:
    """The functions of an executed module (its names, functions among them) as a training loop wants them.

    `explain` gives the place of an error (`file:line: `) and its text; without it there is no place.
    """
    triples, experts = _triples(module), task_to_skill(module)
    rewards, dones = ([_of_features(triple[kind]) for triple in triples] for kind in ("reward", "is_done"))

    def reward(task: int, features: Mapping[str, Any]) -> Any:
        # Only the present task's: another's error or NaN is not this one's.
        if not _check(task, len(triples)):
            return 0.0
        try:
            return rewards[task](features)
        except Exception as error:
            raise _failed(task, "reward", error, explain) from error

    def is_done(task: int, features: Mapping[str, Any]) -> Any:
        if not _check(task, len(triples)):
            return False
        try:
            return dones[task](features)
        except Exception as error:
            raise _failed(task, "is_done", error, explain) from error

    def completion(task: int, features: Mapping[str, Any]) -> tuple[bool, int]:
        done = bool(is_done(task, features))
        return done, task + done

    count = max(experts) + 1
    return TaskFunctions(reward, is_done, completion, list(range(count)), count, experts)


def _triples(module: Functions) -> list[dict[str, Callable[..., Any]]]:
    """By the names in the mapping: what a function calls itself says nothing (aliases, lambdas)."""
    found: dict[int, dict[str, Callable[..., Any]]] = {}
    for name, function in module.items():
        match = NAME.fullmatch(name)
        if match and callable(function):
            found.setdefault(int(match[1]), {})[match[2]] = function
    wanted = [f"task_{i}_{kind}" for i in range(max(found, default=0) + 1) for kind in KINDS]
    if missing := [name for name in wanted if not callable(module.get(name))]:
        raise SkillError(f"the module has no {', '.join(missing[:6])}; each task has {', '.join(KINDS)}")
    return [found[index] for index in sorted(found)]


def _check(task: int, count: int) -> bool:
    """True for a task of the plan, False for the one after the last."""
    if not 0 <= task <= count:
        raise SkillError(
            f"task {task} is out of range: there are {count}, 0 to {count - 1}, and {count} after the last"
        )
    return task < count


def _of_features(function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Any]:
    """A function that takes those of the features that `function` names."""
    if isinstance(function, SkillFunction):
        return function.of
    wanted = frozenset(inspect.signature(function).parameters)
    return lambda features: function(**{name: value for name, value in features.items() if name in wanted})


def _failed(task: int, kind: str, error: Exception, explain: Explain | None) -> SkillError:
    """What a function's error says. Interrupted from outside, it says so itself; a MemoryError says nothing."""
    place, told = ("", _plain(error)) if explain is None else explain(error)
    return SkillError(f"{place}task_{task}_{kind} failed: {told}")


def _plain(error: Exception) -> str:
    return str(error) if isinstance(error, SkillError) else f"{type(error).__name__}: {error}".removesuffix(": ")
