"""Environments by name: gymnasium's own, and those of packages known here.

In: the `environment` section. Out: one environment, or a vector of them that resets itself. A configuration can name
only what is on the lists below: nothing it says is imported.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState

from policysmith.config.experiment import Environment
from policysmith.errors import ConfigError, Problem, did_you_mean, missing_extra
from policysmith.training.environments.replay import Replayable
from policysmith.training.environments.two_player import GAMES, Games, game_spaces, is_game
from policysmith.training.process.signals import interrupts_ignored

__all__ = ["WRAPPERS", "close_vector", "make_environment", "make_vector", "single_spaces"]

# Environments that a package registers when it is imported: prefix of the id → (module, extra).
_PROVIDERS = {"MiniGrid-": ("minigrid", "minigrid"), "BabyAI-": ("minigrid", "minigrid")}

_GYMNASIUM = (
    "AtariPreprocessing", "ClipAction", "FilterObservation", "FlattenObservation", "FrameStackObservation",
    "GrayscaleObservation", "MaxAndSkipObservation", "NormalizeReward", "RescaleAction", "RescaleObservation",
    "ReshapeObservation", "ResizeObservation", "StickyAction", "TimeAwareObservation", "TimeLimit",
)  # fmt: skip
_MINIGRID = (
    "FlatObsWrapper", "FullyObsWrapper", "ImgObsWrapper", "OneHotPartialObsWrapper", "RGBImgObsWrapper",
    "RGBImgPartialObsWrapper", "SymbolicObsWrapper", "ViewSizeWrapper",
)  # fmt: skip
WRAPPERS: Mapping[str, str] = {
    **dict.fromkeys(_GYMNASIUM, "gymnasium.wrappers"),
    **dict.fromkeys(_MINIGRID, "minigrid.wrappers"),
    "ReturnToGo": "policysmith.training.environments.return_to_go",
}
"""The allow-list of environment wrappers: name → module."""


def make_environment(section: Environment, **options: Any) -> gymnasium.Env[Any, Any]:
    """One environment with its wrappers; `options` go to `gymnasium.make` beside the section's own."""
    if is_game(section):
        raise ConfigError(
            [Problem("environment.id", f"{section.id} is a game for two, which one policy can't play alone")]
        )
    _import_provider(section.id)
    wrappers = [_wrapper(item, index) for index, item in enumerate(section.wrappers)]
    try:
        environment = gymnasium.make(section.id, disable_env_checker=True, **{**section.options, **options})
    except (gymnasium.error.Error, TypeError) as error:
        message = f"{section.id!r} can't be made: {error}{did_you_mean(section.id, GAMES)}"
        raise ConfigError([Problem("environment.id", message)]) from error
    for wrap in wrappers:
        environment = wrap(environment)
    return environment


def single_spaces(section: Environment) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
    """The observation and action space of one environment, or of each player of a game."""
    if is_game(section):
        return game_spaces(section)
    environment = make_environment(section)
    environment.close()
    return environment.observation_space, environment.action_space


def make_vector(section: Environment, num_envs: int | None = None, *, replayable: bool = False) -> VectorEnv:
    """`num_envs` copies (default: the section's) that reset themselves; `autoreset_mode` is in their metadata.

    `replayable` ones keep a journal, by which they can be brought back to where they stood. Worker processes leave
    Ctrl-C to this one.
    """
    count = num_envs or section.num_envs
    if section.vectorization == "envpool":
        return _envpool(section, count)
    mode = AutoresetMode.SAME_STEP if section.autoreset == "same_step" else AutoresetMode.NEXT_STEP
    thunks = [partial(_copy, section, index if replayable else None) for index in range(count)]
    if section.vectorization == "sync":
        return SyncVectorEnv(thunks, autoreset_mode=mode)
    with interrupts_ignored():
        return AsyncVectorEnv(thunks, autoreset_mode=mode)


def close_vector(environments: VectorEnv | Games, patience: float = 0.0) -> str | None:
    """Close environments, whatever state they are in; which worker processes had died, as a sentence, if any had.

    A worker that is dying closes its pipe before it is dead: wait for that up to `patience` seconds.
    """
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


def _copy(section: Environment, index: int | None) -> gymnasium.Env[Any, Any]:
    environment = make_environment(section)
    return environment if index is None else Replayable(environment, index)


def _envpool(section: Environment, count: int) -> VectorEnv:
    try:
        envpool = importlib.import_module("envpool")
    except ImportError as error:
        raise missing_extra("envpool", "envpool") from error
    if section.wrappers:
        raise ConfigError([Problem("environment.wrappers", "envpool runs its own environments: it takes no wrappers")])
    return envpool.make(section.id, env_type="gymnasium", num_envs=count, **section.options)


def _import_provider(name: str) -> None:
    if ":" in name:
        raise ConfigError(
            [Problem("environment.id", f"{name!r} names a module to import, which a configuration may not")]
        )
    for prefix, (module, extra) in _PROVIDERS.items():
        if name.startswith(prefix):
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise missing_extra(module, extra) from error


def _wrapper(item: Mapping[str, Any] | str, index: int) -> Callable[[Any], Any]:
    options = {"type": item} if isinstance(item, str) else dict(item)
    name = str(options.pop("type", None))
    path = f"environment.wrappers.{index}"
    if name not in WRAPPERS:
        hint = did_you_mean(name, WRAPPERS) or f"; allowed: {', '.join(sorted(WRAPPERS))}"
        raise ConfigError([Problem(path, f"unknown wrapper {name!r}{hint}")])
    try:
        wrapper = getattr(importlib.import_module(WRAPPERS[name]), name)
    except ImportError as error:
        raise missing_extra(WRAPPERS[name].split(".")[0], WRAPPERS[name].split(".")[0]) from error
    allowed = [p for p in inspect.signature(wrapper).parameters if p not in ("env", "self")]
    for option in options:
        if option not in allowed:
            hint = did_you_mean(option, allowed) or f"; it has: {', '.join(allowed) or 'none'}"
            raise ConfigError([Problem(f"{path}.{option}", f"unknown option of {name!r}{hint}")])
    return lambda environment: wrapper(environment, **options)
