"""Observation spaces, action spaces and models to run the laws of policies over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policysmith.policy import ActorCritic, build_policy
from policysmith.registry import default_registry

BATCH = 4

OBSERVATIONS: dict[str, Callable[[], spaces.Space[Any]]] = {
    "vector": lambda: spaces.Box(-np.inf, np.inf, (4,), np.float32),
    "scalar": lambda: spaces.Box(-1, 1, (), np.float64),
    "image_hwc": lambda: spaces.Box(0, 255, (10, 9, 3), np.uint8),
    "image_chw": lambda: spaces.Box(0, 255, (3, 10, 10), np.uint8),
    "image_hw": lambda: spaces.Box(0, 255, (9, 10), np.uint8),
    "discrete": lambda: spaces.Discrete(5, start=-2),
    "multidiscrete": lambda: spaces.MultiDiscrete([3, 2, 5]),
    "multidiscrete_2d": lambda: spaces.MultiDiscrete([[3, 2], [4, 5]], start=[[1, 0], [0, -2]]),
    "multibinary_2d": lambda: spaces.MultiBinary((2, 3)),
    "planes": lambda: spaces.Box(0, 1, (4, 5, 5), np.float32),
    "dict": lambda: spaces.Dict(
        camera=spaces.Box(0, 255, (9, 9, 3), np.uint8),
        inner=spaces.Dict(room=spaces.Discrete(3, start=1), speed=spaces.Box(-1, 1, (2,), np.float32)),
    ),
    "tuple": lambda: spaces.Tuple(
        (spaces.Box(-1, 1, (2, 2)), spaces.Tuple((spaces.MultiBinary(2), spaces.Discrete(2))))
    ),
}

ACTIONS: dict[str, Callable[[], spaces.Space[Any]]] = {
    "discrete": lambda: spaces.Discrete(4),
    "discrete_start": lambda: spaces.Discrete(3, start=-4),
    "multidiscrete": lambda: spaces.MultiDiscrete([2, 5, 3]),
    "multidiscrete_2d": lambda: spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [0, 5]]),
    "multibinary": lambda: spaces.MultiBinary(3),
    "multibinary_2d": lambda: spaces.MultiBinary((2, 2)),
    "box": lambda: spaces.Box(-2, 3, (3,), np.float32),
    "box_2d": lambda: spaces.Box(-1, 1, (2, 2), np.float64),
    "box_scalar": lambda: spaces.Box(-1, 1, (), np.float32),
    "squashed": lambda: spaces.Box(np.array([-2, 0], np.float32), np.array([1, 10], np.float32)),
    "squashed_scalar": lambda: spaces.Box(-3, 1, (), np.float32),
    "hybrid": lambda: spaces.Dict(
        move=spaces.Discrete(3, start=1),
        look=spaces.Box(-1, 1, (2,), np.float32),
        inner=spaces.Tuple((spaces.MultiBinary((2, 2)), spaces.MultiDiscrete([2, 3]))),
    ),
    "tuple": lambda: spaces.Tuple((spaces.Box(-1, 1, (), np.float32), spaces.Discrete(2))),
}

# Spaces for models whose observation is a whole sequence.
WINDOWS: dict[str, Callable[[], spaces.Space[Any]]] = {"window": lambda: spaces.Box(-1, 1, (5, 3), np.float32)}

# Spaces for models whose observation says which task a row belongs to.
TASKS: dict[str, Callable[[], spaces.Space[Any]]] = {
    "tasks": lambda: spaces.Dict(observation=spaces.Box(-1, 1, (4,), np.float32), task=spaces.Discrete(2, start=1)),
}

# Spaces for models that choose moves at points of a board: two moves at each point of `planes`.
MOVES: dict[str, Callable[[], spaces.Space[Any]]] = {"moves": lambda: spaces.Discrete(50, start=3)}

# A network over one vector, with the heads that make a policy of it.
TRUNK = {
    "inputs": {"observation": [4]},
    "components": {"features": {"type": "mlp", "in_keys": "observation", "hidden": [8]}},
}
HEADS = {
    "policy": {"type": "action_head", "in_keys": "features"},
    "value": {"type": "value_head", "in_keys": "main"},
}

# Every registered model → options that make it small; a model without an entry is built as it is.
MODELS: dict[str, dict[str, Any]] = {
    "graph": {
        "components": {
            "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [8]},
            "policy": {"type": "action_head", "in_keys": "trunk"},
            "state_value": {"type": "value_head", "in_keys": "trunk"},
        }
    },
    "factory": {"factory": "policy_constructor", "config": {"config": TRUNK}, **HEADS},
    "mlp": {"hidden": [8]},
    "networks": {"config": TRUNK, **HEADS},
    "moe": {"layer_width": 8, "num_layers": 2},
    "resnet": {"tower_depth": 1, "tower_width": 8},
    "se_resnet": {"num_blocks": 1, "channels": 8, "se_reduction": 4, "global_pool_channels": 8, "policy_channels": 4},
    "transformer": {"dim": 8, "layers": 1, "attention": {"type": "mha", "heads": 2}, "extractor": "basic"},
}
MODELS.update({name: {} for name in default_registry.names("model") if name not in MODELS})


# One name for each thing registered: aliases of a model need not be exported and compiled again.
DISTINCT = list({default_registry.entry("model", name).target: name for name in sorted(MODELS, reverse=True)}.values())


def observations_for(model: str) -> list[str]:
    """The observation spaces that a model takes: every one, or those of its kind alone."""
    traits = default_registry.entry("model", model).traits
    kinds = {"board": "planes", "window": "window", "tasks": "tasks", "named": "vector"}
    return [space for kind, space in kinds.items() if traits.get(kind)] or list(OBSERVATIONS)


def action_for(model: str, wanted: str) -> str:
    """The action space wanted where the model takes it, else one that it is for."""
    return "moves" if default_registry.entry("model", model).traits.get("spatial_actions") else wanted


def policy_of(
    observation: str, action: str, model: str = "mlp", *, seed: int | None = 0, **options: Any
) -> ActorCritic:
    """A small policy for two named spaces, in evaluation mode; squashed where the action space's name says so."""
    squash = {"squash": True} if action.startswith("squashed") and model == "mlp" else {}
    spec = default_registry.decode("model", {"type": model, **MODELS[model], **squash, **options})
    action_space = {**ACTIONS, **MOVES}[action]()
    return build_policy(
        spec, {**OBSERVATIONS, **WINDOWS, **TASKS}[observation](), action_space, default_registry, seed=seed
    ).eval()


def lively(policy: ActorCritic) -> ActorCritic:
    """The same policy with a head that is not almost uniform, so that a wrong row or a wrong leaf shows."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.components["policy"].parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.7)
    return policy


def batch_of(policy: ActorCritic, batch: int = BATCH, seed: int = 0) -> Any:
    """A batch of observations as tensors, drawn from the policy's own observation space."""
    return policy.prepare(stack(samples(policy.observations.space, batch, seed)))


def samples(space: spaces.Space[Any], count: int, seed: int = 0) -> list[Any]:
    """Random points of a space."""
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def stack(points: Sequence[Any]) -> Any:
    """Points of one space as one batch of the same structure."""
    first = points[0]
    if isinstance(first, dict):
        return {key: stack([p[key] for p in points]) for key in first}
    if isinstance(first, tuple):
        return tuple(stack(list(column)) for column in zip(*points, strict=True))
    return np.stack([np.asarray(p) for p in points])


def rows(batch: Any, index: Any) -> Any:
    """Some rows of a batch, whatever its structure; an integer index takes one row away from the batch."""
    if isinstance(batch, dict):
        return {key: rows(value, index) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(rows(value, index) for value in batch)
    return batch[index]


def leaves(structure: Any) -> list[Tensor]:
    """The tensors of a nested structure, in order."""
    if isinstance(structure, dict):
        return [leaf for value in structure.values() for leaf in leaves(value)]
    if isinstance(structure, tuple | list):
        return [leaf for value in structure for leaf in leaves(value)]
    return [structure]
