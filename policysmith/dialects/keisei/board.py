"""Boards: observations are planes (C, H, W), an action is one of many moves.

In: a model as a configuration writes it and the two sizes. Out: its policy, or every problem by name.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt
from gymnasium import spaces
from pydantic import BeforeValidator, PlainValidator, ValidationError

import policysmith.parts  # noqa: F401 - importing registers the types that models are made of
from policysmith.config.experiment import decode_experiment
from policysmith.config.load import load
from policysmith.config.options import OptionSchema, error_at, failures, located
from policysmith.errors import ConfigError, Problem
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.factory import build_policy
from policysmith.registry import Registry

__all__ = ["BoardShape", "Count", "build_on_board", "checked"]


def _whole(value: Any) -> Any:
    """A NumPy integer, as spaces have them, as Python's own."""
    return operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value


def _board_shape(value: Any) -> tuple[int, ...]:
    sizes = tuple(map(_whole, value)) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(sizes) != 3 or not all(type(size) is int and size > 0 for size in sizes):
        raise located("board", [error_at((), f"expected (C, H, W), three integers > 0, found {value!r}", value)])
    return sizes


Count = Annotated[int, Gt(0), BeforeValidator(_whole)]
BoardShape = Annotated[tuple[int, ...], PlainValidator(_board_shape)]


def board(obs_shape: BoardShape, num_actions: Count) -> None:
    """The two sizes as a signature, from which their schema follows."""


SIZES = OptionSchema(board, "board")


def checked(schema: OptionSchema, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that a schema accepts; raises `ConfigError` with every problem."""
    try:
        return schema.decode(values, {})
    except ValidationError as error:
        problems = [Problem(".".join(map(str, path)), message) for path, message in failures(error)]
        raise ConfigError(problems) from None


def build_on_board(
    model: Mapping[str, Any], obs_shape: Sequence[int], num_actions: int, registry: Registry
) -> ActorCritic:
    """A model `{type: …, option: …}` for planes (C, H, W) and so many moves; weights from torch's global generator.

    The policy knows its configuration, so it can be stored. Raises `ConfigError`.
    """
    sizes = checked(SIZES, {"obs_shape": obs_shape, "num_actions": num_actions})
    experiment = decode_experiment(load({"seed": None, "model": dict(model)}), registry)
    return build_policy(
        experiment["model"],
        spaces.Box(-np.inf, np.inf, sizes["obs_shape"], np.float32),
        spaces.Discrete(sizes["num_actions"]),
        registry,
        config=experiment.resolved(),
    )
