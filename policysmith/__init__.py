"""policysmith builds reinforcement-learning policies from data.

Describe an actor-critic network in YAML or a mapping; it is checked whole before a weight is allocated, then built,
trained, stored and served. Names are imported when first used, so `import policysmith` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ActorCritic": "policysmith.policy.actor_critic",
    "ActorCriticProtocol": "policysmith.policy.protocol",
    "ActorModule": "policysmith.modules",
    "Component": "policysmith.graph.component",
    "ComponentContainer": "policysmith.compile.container",
    "GraphModel": "policysmith.compile.model",
    "LinearModule": "policysmith.modules",
    "MergeModule": "policysmith.modules",
    "ModelConfig": "policysmith.dialects.trading_bot.names",
    "ModelFactory": "policysmith.dialects.policy_constructor.names",
    "ModelRegistry": "policysmith.dialects.keisei.names",
    "PolicyAgent": "policysmith.dialects.metta.policy_agent",
    "PolicyConstructorModelFactory": "policysmith.dialects.policy_constructor.names",
    "PolicyStore": "policysmith.store",
    "build": "policysmith.api",
    "build_model": "policysmith.api",
    "check": "policysmith.api",
    "create_model": "policysmith.dialects.keisei.names",
    "describe": "policysmith.api",
    "errors": "policysmith.errors",
    "evaluate": "policysmith.api",
    "list_types": "policysmith.api",
    "load": "policysmith.api",
    "model_factory": "policysmith.dialects.keisei.names",
    "model_factory_v2": "policysmith.dialects.keisei.names",
    "register": "policysmith.registry",
    "save": "policysmith.api",
    "train": "policysmith.api",
}

__all__ = sorted(_HOMES)  # pyright: ignore


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'policysmith' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    value = home if name == "errors" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
