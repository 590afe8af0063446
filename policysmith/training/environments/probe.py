"""A few steps of one environment, looked at closely: two episodes with the same seed, and the beginning of a third.

In: an environment. Out: what is not as gymnasium's interface and the environment's own spaces promise.
"""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from policysmith.errors import ConfigError, PolicysmithError
from policysmith.ops.random_stream import random_stream
from policysmith.policy.actions import ActionDistribution
from policysmith.policy.masks import legal_masks
from policysmith.policy.observations import MASK
from policysmith.training.environments.against_space import (
    Finding,
    end_findings,
    mask_findings,
    observation_findings,
    reward_findings,
)
from policysmith.training.environments.guarded import failure, named
from policysmith.training.environments.random_actions import random_actions
from policysmith.training.environments.registered import newer_version
from policysmith.training.environments.replay import spaces_kept

__all__ = ["SEED", "Judged", "Probe"]

STEPS = 5  # of each of the two episodes
SEED = 123_456
SECONDS = 2.0  # after which no further step is taken: an environment whose steps take long is judged by fewer
RESET = "reset(*, seed=None, options=None)"
STEP = "(observation, reward, terminated, truncated, info)"
OLD = " (gym's old interface)"


@dataclass
class Judged:
    """What was found: `faults` can't be trained in, `left_out` are numbers that are not finite, whose steps training
    leaves out, and `warnings` are of what goes on, but seldom as it was meant.
    """

    faults: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """What does not stop a run."""
        return [*self.left_out, *self.warnings]


class _Faulty(Exception):
    """A fault was found: what comes after it would only follow from it."""


class Probe:
    """Takes the steps in an environment. Raises `EnvironmentFailure` for what the environment raises."""

    def __init__(self, environment: gym.Env) -> None:
        self.environment, self.judged = environment, Judged()
        self.bare = environment.unwrapped
        self.kind = type(self.bare)
        wrapped = environment.observation_space is not self.bare.observation_space
        self.through = f" through {type(environment).__name__}" if wrapped else ""
        self.until = time.monotonic() + SECONDS
        self._noted: set[str] = set()

    def run(self) -> Judged:
        """What was found, up to the first fault."""
        spec = self.environment.spec
        if spec is not None and (newer := newer_version(spec)) is not None:
            self.judged.warnings.append(f"{spec.id} is out of date: {newer} is the latest")
        try:
            with spaces_kept(self.environment):
                self._signature()
                self._interface()
                self._episodes(repeatable=spec is None or not spec.nondeterministic)
        except _Faulty:
            pass
        return self.judged

    # gymnasium's interface, of the environment itself: its wrappers stumble over it in ways of their own

    def _signature(self) -> None:
        parameters = list(inspect.signature(self.kind.reset).parameters.values())[1:]
        loose = any(p.kind is p.VAR_KEYWORD for p in parameters)
        names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        for name in () if loose else ("seed", "options"):
            if name not in names:
                self._fault("reset", f"takes no {name}{OLD if name == 'seed' else ''}; gymnasium's is {RESET}")
        needed = [p.name for p in parameters if p.name in names and p.default is p.empty]
        if needed:
            self._fault("reset", f"can't be called without {', '.join(needed)}; gymnasium's is {RESET}")

    def _interface(self) -> None:
        """One reset and one step without the wrappers: what they give, not yet what is in it."""
        given = self._ask(self.bare, "reset", lambda: self.bare.reset(seed=SEED, options=None))
        if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping)):
            self._fault("reset", f"gave {_counted(given)}; gymnasium's gives (observation, info)")
        action = self._action(self.bare, *given)
        given = self._ask(self.bare, "step", lambda: self.bare.step(action))
        if not (isinstance(given, tuple) and len(given) == 5):
            old = OLD if isinstance(given, tuple) and len(given) == 4 else ""
            self._fault("step", f"gave {_counted(given)}{old}; gymnasium's gives {STEP}")
        _, reward, terminated, truncated, info = given
        self._note("step", reward_findings(reward))
        self._note("step", [*end_findings("terminated", terminated), *end_findings("truncated", truncated)])
        if not isinstance(info, Mapping):
            self._fault("step", f"gave info as {type(info).__name__}; it is a dict")

    # Episodes, as a run has them

    def _episodes(self, repeatable: bool) -> None:
        differ = _differences(self._episode(SEED), self._episode(SEED))
        if differ and self.environment is not self.bare:  # a wrapper may remember: NormalizeReward its statistics
            differ = _differences(self._episode(SEED, env=self.bare), self._episode(SEED, env=self.bare))
        if differ and repeatable:
            when = "begins" if differ[0] == 0 else f"is at step {differ[0]}, after the same actions,"
            self.judged.warnings.append(
                f"an episode of {named(self.kind, 'reset')} {when} another with the same seed, so that no run can be "
                "repeated: call super().reset(seed=seed), and draw from self.np_random"
            )
        self._episode(None, steps=1)  # as the next one begins when an episode has ended

    def _episode(self, seed: int | None, steps: int = STEPS, env: gym.Env | None = None) -> list[Any]:
        """What the steps gave; where an episode ends early, the next one begins without a seed.

        Actions come from a stream of this thread's own: others may be judging too.
        """
        with random_stream(SEED):
            return self._steps(seed, steps, env)

    def _steps(self, seed: int | None, steps: int, env: gym.Env | None) -> list[Any]:
        look = self._look if env is None else (lambda *_: None)  # without its wrappers it has other spaces
        env, found = env or self.environment, []
        if seed is not None:
            env.action_space.seed(seed)
            env.observation_space.seed(seed)
        observation, info = self._ask(env, "reset", lambda: env.reset(seed=seed))
        look("reset", observation, info)
        found.append(copy.deepcopy(observation))
        for _ in range(steps):
            if time.monotonic() > self.until:
                break
            step = partial(env.step, self._action(env, observation, info))
            observation, reward, terminated, truncated, info = self._ask(env, "step", step)
            self._note("step", reward_findings(reward))
            look("step", observation, info)
            found.append((copy.deepcopy(observation), float(reward), bool(terminated), bool(truncated)))
            if terminated or truncated:
                observation, info = self._ask(env, "reset", env.reset)
                look("reset", observation, info)
        return found

    def _look(self, method: str, observation: Any, info: Any) -> None:
        env = self.environment
        self._note(method, observation_findings(env.observation_space, observation), self.through)
        for source, mask in _masks(env, observation, info):
            self._note(method, mask_findings(env.action_space, mask, source))

    def _action(self, env: gym.Env, observation: Any, info: Mapping[str, Any]) -> Any:
        """A random legal action, from torch's generator: the spaces' own are the environment's."""
        try:
            actions = ActionDistribution(env.action_space)
        except ConfigError:  # a space that only a wrapper makes fit for a policy
            space = copy.deepcopy(env.action_space)
            space.seed(SEED)
            return space.sample()
        given = next((mask for _, mask in _masks(env, observation, info)), None)
        try:
            masks = [] if given is None else legal_masks(env.action_space, given, 1, torch.device("cpu"))
        except (ValueError, TypeError, RuntimeError):  # told of where it is looked at
            masks = []
        return actions.first(actions.to_environment(actions.structure(random_actions(actions, masks, 1))))

    def _ask(self, env: gym.Env, method: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except PolicysmithError:
            raise
        except Exception as error:
            raise failure(env, method, error, "before the run began") from error

    def _note(self, method: str, findings: Iterable[Finding], through: str = "") -> None:
        for severity, text in findings:
            if severity == "fault":
                self._fault(method, f"gave{through} {text}")
            what = text.split(" with ")[0].split(";")[0]  # once of each kind, whatever the number was
            if what not in self._noted:
                self._noted.add(what)
                kept = self.judged.left_out if severity == "nonfinite" else self.judged.warnings
                kept.append(f"{named(self.kind, method)} gave{through} {text}")

    def _fault(self, method: str, text: str) -> None:
        self.judged.faults.append(f"{named(self.kind, method)} {text}")
        raise _Faulty


def _masks(env: gym.Env, observation: Any, info: Any) -> Iterator[tuple[str, Any]]:
    """(source, mask) of each legal mask: in `info`, as a leaf, or by the method `action_masks` where no wrapper is."""
    if isinstance(info, Mapping) and info.get(MASK) is not None:
        yield f"info[{MASK!r}]", info[MASK]
    if isinstance(env.observation_space, gym.spaces.Dict) and isinstance(observation, Mapping) and MASK in observation:
        yield f"the observation's {MASK}", observation[MASK]
    if not isinstance(env, gym.Wrapper) and callable(getattr(env, "action_masks", None)):
        yield "action_masks()", env.action_masks()


def _counted(given: Any) -> str:
    """What came in place of a tuple of so many."""
    if isinstance(given, tuple):
        return f"{len(given)} values"
    shape = getattr(given, "shape", None)
    return f"an array of shape {tuple(shape)} alone" if shape is not None else f"{type(given).__name__} alone"


def _differences(one: list[Any], other: list[Any]) -> list[int]:
    """The steps at which two episodes are not alike."""
    return [step for step, (a, b) in enumerate(zip(one, other, strict=False)) if not _same(a, b)]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray | np.generic | float):
        return bool(np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f"))
    return bool(one == other)
