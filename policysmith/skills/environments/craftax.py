"""Craftax-Classic for skills: the symbolic observation, and what the world holds as features. N copies.

In: actions and tasks. Out: one compiled JAX program steps all copies, computes features, and judges by the tasks'
functions; observations come over by DLPack, without a copy where JAX computes on the CPU.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch.utils.dlpack
from gymnasium import spaces

from policysmith.config.limits import Limits
from policysmith.errors import SkillError, missing_extra
from policysmith.registry import register
from policysmith.skills.environments.skill_environment import SkillStep
from policysmith.skills.modules.tasks import TaskFunctions
from policysmith.types import Count

__all__ = ["CraftaxClassic"]

ENVIRONMENT = "craftax.craftax_classic.envs.craftax_symbolic_env"
CACHE = "~/.cache/policysmith/jax"
INTRINSICS = ("health", "food", "drink", "energy")
POOL = 16  # fresh worlds that are made at once
FOREVER = 2**30


@register("craftax_classic", slot="skill_environment")
class CraftaxClassic:
    """Craftax-Classic (arXiv 2402.16801), symbolic, stepped by JAX. Functions compute with `jax.numpy` or operators.

    Functions may take `inventory` and `inventory_diff` (by item), `achievements` and `achievements_diff` (by name,
    0 or 1), `player_intrinsics` and `player_intrinsics_diff` {health, food, drink, energy}, `closest_blocks` and
    `closest_blocks_prev` (by block, in steps, of the 7 × 9 that are seen; 16 where there is none), `health_penalty`
    (0.1 for each unit of an intrinsic gained, -0.1 for each one lost) and `steps`. They are compiled, so they can't
    branch on values: `where(a, b, c)` in place of `b if a else c`, and `maximum` of jax.numpy in place of `max`.

    `cache` is where compiled programs are kept between runs (null: nowhere); making one takes about 30 seconds.

    Args:
        num_envs: How many worlds there are.
        max_steps: After how many steps an episode is cut.
        cache: Where compiled programs are kept; null keeps none.
    """

    features = frozenset({
        "inventory", "inventory_diff", "achievements", "achievements_diff", "player_intrinsics",
        "player_intrinsics_diff", "closest_blocks", "closest_blocks_prev", "health_penalty", "steps",
    })  # fmt: skip

    def __init__(
        self,
        num_envs: Count = 64,
        max_steps: Count = 10_000,
        cache: str | None = CACHE,
    ) -> None:
        if problem := Limits().environments_problem(num_envs):
            raise ValueError(f"num_envs: {problem}")
        self.num_envs, self.max_steps, self.cache = num_envs, max_steps, cache

    def spaces(self) -> tuple[spaces.Box, spaces.Discrete]:
        """Those of one copy."""
        return _spaces(self._environment())

    def world(self, functions: TaskFunctions, count: int | None = None) -> _World:
        """Copies on JAX's default device."""
        environment = self._environment()
        if self.cache is not None:
            jax = importlib.import_module("jax")
            jax.config.update("jax_compilation_cache_dir", str(Path(self.cache).expanduser()))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        return _World(environment, functions, count or self.num_envs, self.max_steps)

    def _environment(self) -> Any:
        try:
            return importlib.import_module(ENVIRONMENT).CraftaxClassicSymbolicEnvNoAutoReset()
        except ImportError as error:
            raise missing_extra("craftax", "craftax") from error


class _World:
    """All copies in one state. Fresh worlds come from a pool, so that making one never stalls a step of all."""

    def __init__(self, environment: Any, functions: TaskFunctions, count: int, max_steps: int) -> None:
        self._jax, self._numpy = importlib.import_module("jax"), importlib.import_module("jax.numpy")
        self._environment, self._functions, self.count = environment, functions, count
        self._limit, self._parameters = max_steps, environment.default_params.replace(max_timesteps=FOREVER)
        self.observation_space, self.action_space = _spaces(environment)
        jit = self._jax.jit
        self._make, self._step, self._put = jit(self._fresh), jit(self._stepped), jit(self._placed)

    def reset(self, seed: int | None) -> np.ndarray:
        """Every copy anew; chance follows from the seed: (N, D)."""
        start = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._key = self._jax.random.key(start)
        self._pool: Any = None
        self._left = 0
        made = [self._make(self._next_key()) for _ in range(-(-self.count // POOL))]
        observations, states = self._jax.tree.map(lambda *x: self._numpy.concatenate(x)[: self.count], *made)
        self._state = states
        return _bridged(observations)

    def restart(self, rows: np.ndarray) -> np.ndarray:
        """Some copies (n,) in worlds that nobody has seen: (n, D)."""
        seen = []
        for start in range(0, len(rows), POOL):
            wanted = rows[start : start + POOL]
            if self._left < len(wanted):
                self._pool, self._left = self._make(self._next_key()), POOL
            source = np.full(self.count, -1)
            source[wanted] = np.arange(POOL - self._left, POOL - self._left + len(wanted))
            self._left -= len(wanted)
            self._state = self._put(self._state, self._pool[1], source)
            seen.append(_bridged(self._pool[0])[source[wanted]])
        return np.concatenate(seen)

    def step(self, actions: np.ndarray, tasks: np.ndarray) -> SkillStep:
        """One step of every copy."""
        try:
            told = self._step(self._next_key(), self._state, actions, tasks)
        except SkillError as error:
            if "Tracer" in str(error):
                raise SkillError(
                    f"{error.args[0].splitlines()[0]}; compiled functions can't branch on values"
                ) from error
            raise
        observations, self._state, rewards, done, terminated = told[:5]
        rewards = np.asarray(rewards)
        if not np.isfinite(rewards).all():
            task = int(tasks[~np.isfinite(rewards)][0])
            raise SkillError(f"task_{task}_reward gave {rewards[~np.isfinite(rewards)][0]}, not a finite number")
        terminated = np.asarray(terminated)
        truncated = (np.asarray(self._state.timestep) >= self._limit) & ~terminated
        return SkillStep(_bridged(observations), rewards, np.asarray(done), terminated, truncated)

    def close(self) -> None:
        """Drop the state."""
        self._state = self._pool = None

    def _next_key(self) -> Any:
        self._key, key = self._jax.random.split(self._key)
        return key

    def _fresh(self, key: Any) -> Any:
        """POOL worlds: observations and states."""
        make = functools.partial(self._environment.reset_env, params=self._parameters)
        return self._jax.vmap(make)(self._jax.random.split(key, POOL))

    def _placed(self, state: Any, pool: Any, source_N: Any) -> Any:
        """The state with pool[source] where source ≥ 0."""

        def place(ours: Any, theirs: Any) -> Any:
            taken = source_N.reshape(-1, *[1] * (ours.ndim - 1)) >= 0
            return self._numpy.where(taken, theirs[self._numpy.maximum(source_N, 0)], ours)

        return self._jax.tree.map(place, state, pool)

    def _stepped(self, key: Any, state: Any, actions: Any, tasks: Any) -> Any:
        keys = self._jax.random.split(key, self.count)
        return self._jax.vmap(self._one)(keys, state, actions, tasks)

    def _one(self, key: Any, state: Any, action: Any, task: Any) -> Any:
        """One copy's step: observation, state, reward, whether its task is done, and whether the game is over."""
        observation, after, _, over, _ = self._environment.step_env(key, state, action, self._parameters)
        features, numpy = self._features(state, after), self._numpy
        count = len(self._functions.task_to_skill_index)

        def judge(index: int, told: Any) -> tuple[Any, Any]:
            reward, done = self._functions.reward(index, told), self._functions.is_done(index, told)
            return numpy.asarray(reward, numpy.float32).reshape(()), numpy.asarray(done, bool).reshape(())

        branches = [functools.partial(judge, index) for index in range(count)]
        reward, done = self._jax.lax.switch(task, branches, features)
        return observation, after, reward, done, over

    def _features(self, before: Any, after: Any) -> dict[str, Any]:
        """What functions may take, of one copy."""
        items, items_before = vars(after.inventory), vars(before.inventory)
        body, body_before = ({n: getattr(s, f"player_{n}") for n in INTRINSICS} for s in (after, before))
        body_diff = {name: body[name] - body_before[name] for name in INTRINSICS}
        done, done_before = _achievements(after), _achievements(before)
        return {
            "inventory": items,
            "inventory_diff": {name: items[name] - items_before[name] for name in items},
            "achievements": done,
            "achievements_diff": {name: done[name] - done_before[name] for name in done},
            "player_intrinsics": body,
            "player_intrinsics_diff": body_diff,
            "closest_blocks": self._closest(after),
            "closest_blocks_prev": self._closest(before),
            "health_penalty": 0.1 * sum(body_diff.values()),
            "steps": after.timestep,
        }

    def _closest(self, state: Any) -> dict[str, Any]:
        """Steps to the closest block of each kind among those that are seen."""
        numpy, names = self._numpy, _constants().BlockType
        high, wide = _constants().OBS_DIM
        margin = max(high, wide) // 2
        padded = numpy.pad(state.map, margin, constant_values=names.OUT_OF_BOUNDS.value)
        corner = state.player_position + margin - numpy.array([high // 2, wide // 2])
        seen = self._jax.lax.dynamic_slice(padded, corner, (high, wide))
        far = numpy.abs(numpy.arange(high) - high // 2)[:, None] + numpy.abs(numpy.arange(wide) - wide // 2)[None, :]
        return {
            name.name.lower(): numpy.where(seen == name.value, far, high + wide).min()
            for name in names
            if name.name not in ("INVALID", "OUT_OF_BOUNDS")
        }


def _spaces(environment: Any) -> tuple[spaces.Box, spaces.Discrete]:
    shape = environment.observation_space(environment.default_params).shape
    return spaces.Box(0.0, 1.0, shape, np.float32), spaces.Discrete(int(environment.num_actions))


def _achievements(state: Any) -> dict[str, Any]:
    return {name.name.lower(): state.achievements[name.value].astype(int) for name in _constants().Achievement}


def _constants() -> Any:
    return importlib.import_module("craftax.craftax_classic.constants")


def _bridged(array: Any) -> np.ndarray:
    """A JAX array as NumPy's: on the CPU the same memory, which must not be written to; a copy from elsewhere."""
    on_cpu = all(device.platform == "cpu" for device in array.devices())
    return torch.utils.dlpack.from_dlpack(array).numpy() if on_cpu else np.asarray(array)
