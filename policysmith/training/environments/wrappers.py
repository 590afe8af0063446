"""Environment wrappers by name, from an allow-list: a configuration imports nothing else.

In: an item of `environment.wrappers`. Out: what puts the wrapper around an environment, or a problem at its place.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium

from policysmith.errors import ConfigError, Problem, did_you_mean, missing_extra
from policysmith.policy.observations import MASK
from policysmith.training.environments.source_place import first_line
from policysmith.training.environments.typed_options import typed_options

__all__ = ["WRAPPERS", "ActionMasks", "wrapper"]

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

Wrap = Callable[[gymnasium.Env], gymnasium.Env]


def wrapper(item: Mapping[str, Any] | str, index: int) -> Wrap:
    """What puts the wrapper around an environment. Raises `ConfigError`, now or when it is called."""
    options = {"type": item} if isinstance(item, str) else dict(item)
    name, path = str(options.pop("type", None)), f"environment.wrappers.{index}"
    if name not in WRAPPERS:
        hint = did_you_mean(name, WRAPPERS) or f"; allowed: {', '.join(sorted(WRAPPERS))}"
        raise _refused(path, f"unknown wrapper {name!r}{hint}")
    package = WRAPPERS[name].split(".")[0]
    try:
        kind = getattr(importlib.import_module(WRAPPERS[name]), name)
    except ImportError as error:
        raise _refused(path, str(missing_extra(package, package))) from error
    typed = typed_options(kind, options, name, path, without=("env",))

    def wrap(environment: gymnasium.Env) -> gymnasium.Env:
        try:
            wrapped: gymnasium.Env = kind(environment, **typed)
            return wrapped
        except Exception as error:  # whatever other people's constructors raise
            around = getattr(environment.spec, "id", type(environment.unwrapped).__name__)
            raise _refused(path, f"{name} can't be put around {around}: {first_line(error)}") from error

    return wrap


class ActionMasks(gymnasium.Wrapper):
    """Puts what the environment's method `action_masks()` gives into `info`, unless a mask is there already.

    The method is sb3-contrib's protocol for legal actions.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, with its legal actions."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, self._told(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step, and what is legal after it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, self._told(info)

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        return info if MASK in info else {**info, MASK: self.env.get_wrapper_attr("action_masks")()}


def _refused(path: str, message: str) -> ConfigError:
    return ConfigError([Problem(path, message)])
