"""Policies of every kind that an artifact must hold, with weights that no seed gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest
import torch
from gymnasium import spaces

import policysmith.parts  # noqa: F401
from policysmith.config.experiment import decode_experiment
from policysmith.config.load import load as load_document
from policysmith.policy import ActorCritic, build_policy
from policysmith.policy.sections import ObservationOptions
from policysmith.registry import default_registry

CARTPOLE = spaces.Box(
    np.array([-4.8, -np.inf, -0.42, -np.inf], np.float32), np.array([4.8, np.inf, 0.42, np.inf], np.float32)
)
CAR = spaces.Dict(
    [
        ("speed", spaces.Box(-np.inf, np.inf, (3,))),
        ("camera", spaces.Box(0, 255, (8, 6, 3), np.uint8)),
        ("mission", spaces.Text(20, charset="abc é")),
        ("gear", spaces.Discrete(4, start=-1)),
    ]
)
CONTROLS = spaces.Dict(
    [
        ("steer", spaces.Box(-1, 1, (2,))),
        ("button", spaces.Discrete(3, start=1)),
        ("grid", spaces.MultiDiscrete([[2, 3], [2, 2]])),
        ("lamps", spaces.MultiBinary(2)),
    ]
)
SHARED = {
    "twin": {"use": "trunk", "in_keys": "observation"},
    "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [8]},
    "policy": {"type": "action_head", "in_keys": "trunk"},
    "state_value": {"type": "value_head", "in_keys": ["twin", "trunk"]},
}
SMALL = {"type": "mlp", "hidden": [8]}

CASES = {
    "mlp": ({"model": {"type": "mlp"}}, CARTPOLE, spaces.Discrete(2)),
    "hybrid": ({"model": SMALL, "observation": {"exclude": ["mission"]}}, CAR, CONTROLS),
    "normalized": ({"model": SMALL, "observation": {"normalize": True}}, CARTPOLE, spaces.Discrete(2)),
    "shared": ({"model": {"type": "graph", "components": SHARED}}, CARTPOLE, spaces.Discrete(2)),
    "squashed": (
        {"model": {**SMALL, "squash": True, "std": "dependent", "shared": True}},
        CARTPOLE,
        spaces.Box(-2, np.array([1, 3], np.float32)),
    ),
}


def build(name: str, noise: int = 1) -> ActorCritic:
    sections, observation_space, action_space = CASES[name]
    experiment = decode_experiment(load_document(sections), default_registry)
    policy = build_policy(
        experiment["model"],
        observation_space,
        action_space,
        default_registry,
        seed=0,
        observation=asdict(experiment.of(ObservationOptions)),
        config=experiment.resolved(),
    )
    generator = torch.Generator().manual_seed(noise)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
        if policy.has_statistics:
            policy.update_statistics(torch.randn(50, 4, generator=generator) * 3 + 1)
    return policy


@pytest.fixture
def build_case() -> Callable[..., ActorCritic]:
    """`build(name, noise)`: one of the policies above; equal noise gives equal weights."""
    return build


@pytest.fixture(params=list(CASES))
def case(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def cases() -> dict[str, ActorCritic]:
    return {name: build(name) for name in CASES}
