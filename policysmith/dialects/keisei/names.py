"""Models by name, as the original training package makes them: `model_factory`, and a registry for one's own classes.

In: a name, the sizes of the board and of a tower, and what else the model takes. Out: an actor-critic.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from policysmith.config.options import OptionSchema
from policysmith.dialects.keisei.board import BoardShape, Count, build_on_board, checked
from policysmith.dialects.trading_bot.names import ModelConfig, build_from_config
from policysmith.errors import ConfigError, Problem, RegistryError, did_you_mean
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.models.resnet import SMALL, dummy, resnet
from policysmith.policy.protocol import ActorCriticProtocol
from policysmith.registry import Registry, default_registry
from policysmith.types import NonNegativeInt, Share

__all__ = ["ActorCriticResTower", "ModelRegistry", "create_model", "model_factory", "model_factory_v2"]

# Recipes that have a class of their own → what it is given whatever the caller says.
TOWERS: dict[Callable[..., Any], dict[str, Any]] = {resnet: {}, dummy: SMALL}
# The calls of the original protocol. Those that our trainers need besides are not asked for: old classes lack them.
REQUIRED_CALLS = {"forward": "(obs)", "get_action_and_value": "(obs, legal_mask=None, deterministic=False)"}


def model_config(
    model_type: str,
    obs_shape: BoardShape,
    num_actions: Count,
    tower_depth: NonNegativeInt = 9,
    tower_width: Count = 256,
    se_ratio: Share | None = None,
    additional_params: Mapping[str, Any] = {},
) -> None:
    """What `create_model` takes, as a signature: its schema is derived like any type's."""


MODEL_CONFIG = OptionSchema(model_config, "create_model")


class ActorCriticResTower(ActorCritic):
    """The tower as a class: an `ActorCritic` for `input_channels` planes over a board and `num_actions` moves.

    Raises `ConfigError` (a `ValueError`) for a size or rate out of range.
    """

    def __init__(
        self,
        input_channels: int,
        num_actions: int,
        tower_depth: int = 9,
        tower_width: int = 256,
        se_ratio: float | None = None,
        dropout_rate: float = 0.0,
        board_size: tuple[int, int] = (9, 9),
    ) -> None:
        tower = {
            "tower_depth": tower_depth,
            "tower_width": tower_width,
            "se_ratio": se_ratio,
            "dropout_rate": dropout_rate,
        }
        built = build_on_board(
            {"type": "resnet", **tower}, (input_channels, *board_size), num_actions, default_registry
        )
        super().__init__(built.plan, built.components, built.observations, built.actions, built.config)


class ModelRegistry:
    """Models by name: a handle on a registry of types, by default the one that `model_factory` builds from."""

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry = registry or default_registry

    @classmethod
    def isolated(cls) -> ModelRegistry:
        """An independent registry: it starts with the models known now, and what it registers stays its own."""
        return cls(default_registry.copy())

    def register_model(self, name: str, model_class: type) -> None:
        """Register a class that offers `forward` and `get_action_and_value`; raises `RegistryError` if it does not.

        Its constructor gets, of `obs_shape`, `num_actions`, `tower_depth`, `tower_width`, `se_ratio`,
        `input_channels` and `board_size`, those that it names, and whatever else the caller states.
        """
        if not inspect.isclass(model_class):
            raise RegistryError(f"model {name!r}: expected a class, found {model_class!r}")
        missing = [f"{call}{signature}" for call, signature in REQUIRED_CALLS.items() if not _offers(model_class, call)]
        if missing:
            raise RegistryError(f"model {name!r}: {model_class.__qualname__} does not define {' and '.join(missing)}")
        self._registry.register(name, slot="model")(model_class)

    def create_model(self, config: Mapping[str, Any]) -> ActorCriticProtocol:
        """Build `{model_type, obs_shape, num_actions, tower_depth, tower_width, se_ratio, additional_params}`.

        Weights come from torch's global generator. Raises `ConfigError` with every problem by name, `RegistryError`
        for an unknown type; both are `ValueError`s.
        """
        if not isinstance(config, Mapping):
            raise ConfigError(f"expected a mapping with model_type, obs_shape and num_actions, found {config!r}")
        given = checked(MODEL_CONFIG, config)
        name, stated = given.pop("model_type"), given.pop("additional_params")
        recipe, shape = self._target(name), given["obs_shape"]
        target = ActorCriticResTower if recipe in TOWERS else recipe
        offered = {**given, "input_channels": shape[0], "board_size": shape[1:]}
        arguments = {**_arguments(name, target, offered, stated), **TOWERS.get(recipe, {})}
        if inspect.isclass(target):
            model: Any = target(**arguments)
            return model
        return build_on_board({"type": name, **arguments}, shape, given["num_actions"], self._registry)

    def list_models(self, pattern: str = "*") -> list[str]:
        """Sorted names of models that match a shell pattern."""
        return self._registry.names("model", pattern)

    def _target(self, name: str) -> Callable[..., Any]:
        if name not in self.list_models():
            self._registry.load_plugins()
        known = self.list_models()
        if name not in known:
            raise RegistryError(f"Unknown model_type: {name}{did_you_mean(name, known)}; supported: {', '.join(known)}")
        return self._registry.entry("model", name).target


def model_factory(
    model_type: str,
    obs_shape: tuple[int, int, int],
    num_actions: int,
    tower_depth: int = 9,
    tower_width: int = 256,
    se_ratio: float | None = None,
    **kwargs: Any,
) -> ActorCriticProtocol:
    """A new model for planes `obs_shape` (C, H, W) and `num_actions` moves; `kwargs` are the model's own arguments.

    `resnet` is a tower of that size, `se_resnet` one of its own sizes (`num_blocks`, `channels`, …); `dummy`,
    `testmodel` and `resumemodel` are the smallest one, whatever size is asked for. Raises as
    `ModelRegistry.create_model`.
    """
    return create_model(
        {
            "model_type": model_type,
            "obs_shape": obs_shape,
            "num_actions": num_actions,
            "tower_depth": tower_depth,
            "tower_width": tower_width,
            "se_ratio": se_ratio,
            "additional_params": kwargs,
        }
    )


def create_model(config: ModelConfig | Mapping[str, Any], registry: Registry | None = None) -> ActorCriticProtocol:
    """A new model: of a `ModelConfig` or a mapping with its names, over windows, logits (B, A) and value (B,).

    Of a mapping with `model_type`, over a board: see `ModelRegistry.create_model`.
    """
    if isinstance(config, ModelConfig) or _is_flat(config):
        return build_from_config(config, registry)
    return ModelRegistry(registry).create_model(config)


model_factory_v2 = create_model  # the name on the page that asked for it


def _is_flat(config: object) -> bool:
    """Whether a mapping speaks the names of `ModelConfig`, not those of boards."""
    names = {field.name for field in fields(ModelConfig)}
    return isinstance(config, Mapping) and "model_type" not in config and bool(names & set(config))


def _offers(model_class: type, call: str) -> bool:
    """Whether the class has the call from elsewhere than torch and the protocol, which bequeath stubs."""
    stubs = [getattr(base, call, None) for base in (nn.Module, ActorCriticProtocol)]
    found = getattr(model_class, call, None)
    return callable(found) and found not in stubs


def _arguments(
    name: str, target: Callable[..., Any], offered: Mapping[str, Any], stated: Mapping[str, Any]
) -> dict[str, Any]:
    """What the target is called with: of what is offered that which it names, and all that is stated."""
    parameters = inspect.signature(target).parameters.values()
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    arguments = {key: value for key, value in offered.items() if key in named} | dict(stated)
    problems = []
    for key in stated:
        if key in offered or key == "model_type":
            problems.append(Problem(key, "is set by the factory's own arguments; leave it out of the additional ones"))
        elif key not in named and not takes_any:
            own = ", ".join(n for n in named if n not in offered) or "none"
            hint = did_you_mean(key, named) or f"; it has: {own}"
            problems.append(Problem(key, f"unknown argument of model {name!r}{hint}"))
    for key, parameter in named.items():
        if parameter.default is parameter.empty and key not in arguments:
            problems.append(Problem(key, f"model {name!r} requires this argument"))
    if problems:
        raise ConfigError(problems)
    return arguments
