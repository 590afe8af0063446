"""Environments by name: gymnasium's own, and those of packages known here.

In: the `environment` section. Out: one environment, or a vector of them that resets itself. A configuration can name
only what is on the lists below: nothing it says is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState

from policysmith.errors import ConfigError, PolicysmithError, Problem, missing_extra
from policysmith.policy.readings import Known
from policysmith.training.environments.guarded import Guarded
from policysmith.training.environments.known_leaves import known_leaves
from policysmith.training.environments.registered import newer_version, registered
from policysmith.training.environments.replay import Replayable
from policysmith.training.environments.source_place import first_line, method_place, raised_place
from policysmith.training.environments.two_player import Games, game_spaces, is_game
from policysmith.training.environments.typed_options import typed_options
from policysmith.training.environments.workers import Workers
from policysmith.training.environments.wrappers import WRAPPERS, ActionMasks, wrapper
from policysmith.training.process.signals import interrupts_ignored
from policysmith.training.sections import Environment

__all__ = ["WRAPPERS", "close_vector", "described_spaces", "make_environment", "make_vector", "single_spaces"]

GYMNASIUM_OPTIONS = ("max_episode_steps", "render_mode")  # of `gymnasium.make`, whatever the environment takes


def make_environment(section: Environment, **options: Any) -> gymnasium.Env[Any, Any]:
    """One environment with its wrappers; `options` go to `gymnasium.make` beside the section's own."""
    if is_game(section):
        raise ConfigError(
            [Problem("environment.id", f"{section.id} is a game for two, which one policy can't play alone")]
        )
    spec = registered(section.id)
    wrap = [wrapper(item, index) for index, item in enumerate(section.wrappers)]
    environment = _made(spec, {**section.options, **options})
    try:
        for put_around in wrap:
            environment = put_around(environment)
        _require_spaces(environment)
    except ConfigError:
        with suppress(Exception):  # what is wrong counts, not that it can't be closed after it
            environment.close()
        raise
    return ActionMasks(environment) if environment.has_wrapper_attr("action_masks") else environment


def single_spaces(section: Environment) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
    """The observation and action space of one environment, or of each player of a game."""
    return described_spaces(section)[:2]


def described_spaces(
    section: Environment,
) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any], Mapping[str, Known]]:
    """As `single_spaces`, and what is known of the observation's leaves by the environment's class and wrappers."""
    if is_game(section):
        return *game_spaces(section), {}
    environment = make_environment(section)
    environment.close()
    return environment.observation_space, environment.action_space, known_leaves(environment)


def make_vector(
    section: Environment, num_envs: int | None = None, *, replayable: bool = False, **options: Any
) -> VectorEnv:
    """`num_envs` copies (default: the section's); how they begin anew is told by `autoreset_mode` in their metadata.

    `options` go to `gymnasium.make` beside the section's own. `replayable` ones keep a journal, by which they can be
    brought back to where they stood. Worker processes leave Ctrl-C to this one.
    """
    count = num_envs or section.num_envs
    if section.vectorization == "envpool":
        return _envpool(section, count)
    mode = AutoresetMode[section.autoreset.upper()]
    thunks = [partial(_copy, section, index, replayable, **options) for index in range(count)]
    if section.vectorization == "sync":
        return SyncVectorEnv(thunks, autoreset_mode=mode)
    try:
        with interrupts_ignored():
            return Workers(thunks, autoreset_mode=mode)
    except (EOFError, ConnectionError) as error:
        message = (
            f"a worker process of {section.id} ended before it had made its environment, of which there are {count}"
        )
        raise PolicysmithError(f"{message}: can several be made on this machine?") from error


def close_vector(environments: VectorEnv | Games, patience: float = 0.0) -> str | None:
    """Close environments, whatever state they are in; which worker processes had died, as a sentence, if any had.

    A worker that is dying closes its pipe before it is dead: wait for that up to `patience` seconds.
    """
    environments = environments if isinstance(environments, Games) else environments.unwrapped
    if not isinstance(environments, AsyncVectorEnv):
        environments.close()
        return None
    ending = wait([process.sentinel for process in environments.processes], patience)
    for process in environments.processes:
        if process.sentinel in ending:
            process.join(1.0)  # the system closes a process's files a moment before it can be waited for
    dead = [(i, p.exitcode) for i, p in enumerate(environments.processes) if not p.is_alive()]
    told = ", ".join(f"{i} (exit code {code})" for i, code in dead)
    if dead or environments._state != AsyncState.DEFAULT:  # it would wait for an answer that does not come
        environments._state = AsyncState.DEFAULT
        environments.close(terminate=True)
    else:
        environments.close()
    return f"the worker process of environment {told} ended" if dead else None


def _copy(section: Environment, index: int, replayable: bool, **options: Any) -> gymnasium.Env[Any, Any]:
    environment = make_environment(section, **options)
    return Guarded(Replayable(environment, index) if replayable else environment, index)


def _made(spec: EnvSpec, options: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """The registered environment. Raises `ConfigError` for whatever its constructor raises."""
    try:
        creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(str(spec.entry_point))
        of_make = {*GYMNASIUM_OPTIONS, *spec.kwargs}
        typed = typed_options(creator, options, spec.id, "environment.options", of_make=of_make)
        return gymnasium.make(spec, disable_env_checker=True, **typed)
    except ConfigError:
        raise
    except Exception as error:
        newer = newer_version(spec)
        latest = f"; the latest version is {newer}" if newer else ""
        raise ConfigError(
            [Problem("environment.id", f"{spec.id!r} can't be made: {_reason(error)}{latest}")]
        ) from error


def _reason(error: Exception) -> str:
    """What a constructor raised; libraries say it in a sentence, others need the kind and the place."""
    if isinstance(error, gymnasium.error.Error | ImportError):
        return " ".join(str(error).split())
    return f"{first_line(error)} ({raised_place(error)})"


def _require_spaces(environment: gymnasium.Env[Any, Any]) -> None:
    for name in ("observation_space", "action_space"):
        space = getattr(environment, name, None)
        if not isinstance(space, gymnasium.Space):
            kind = type(environment.unwrapped)
            place = method_place(kind, "step")
            message = f"{kind.__name__} ({place}) has the {name} {space!r}; it is one of gymnasium.spaces"
            raise ConfigError([Problem("environment.id", message)])


def _envpool(section: Environment, count: int) -> VectorEnv:
    try:
        envpool = importlib.import_module("envpool")
    except ImportError as error:
        raise missing_extra("envpool", "envpool") from error
    if section.wrappers:
        raise ConfigError([Problem("environment.wrappers", "envpool runs its own environments: it takes no wrappers")])
    return envpool.make(section.id, env_type="gymnasium", num_envs=count, **section.options)
