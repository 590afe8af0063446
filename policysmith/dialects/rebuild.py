"""A policy is built anew and given its weights from elsewhere.

In: a model as a configuration writes it, two spaces, and tensors under our names. Out: the policy, in eval mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gymnasium import spaces
from torch import Tensor

import policysmith.parts  # noqa: F401 - its types, as those of policysmith.policy, fill the default registry
from policysmith.config.experiment import decode_experiment
from policysmith.config.load import load
from policysmith.errors import CheckpointError, ConfigError, PolicysmithError, Problem
from policysmith.policy import ActorCritic
from policysmith.policy.factory import make_blueprint
from policysmith.registry import Registry, default_registry

__all__ = ["blank", "rebuild"]


def rebuild(
    file: Path,
    model: Mapping[str, Any],
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    tensors: Mapping[str, Tensor],
    registry: Registry | None = None,
) -> ActorCritic:
    """The policy that `model` describes with `tensors` as its state; draws nothing from torch's global generator.

    Numbers take the dtype that the policy has for them. Raises `CheckpointError` naming `file` where the model cannot
    be built, or where the tensors are not exactly its state.
    """
    try:
        policy = blank(model, observation_space, action_space, registry or default_registry)
        state = policy.state_dict()
        policy.load_state_dict({n: t.to(state[n].dtype) if n in state else t for n, t in tensors.items()})
    except (PolicysmithError, RuntimeError) as error:
        raise CheckpointError(f"{file}: no policy can be built of it here: {error}") from error
    return policy.eval()


def blank(
    model: Mapping[str, Any],
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    registry: Registry,
    *,
    seed: int | None = None,
) -> ActorCritic:
    """The policy that `model` describes, initialised by `seed`; raises `ConfigError` with every problem.

    Without a seed its weights are to be replaced: initialising by role would take longer than all the rest.
    """
    problems: list[Problem] = []

    def report(path: Sequence[str | int], message: str) -> None:
        problems.append(Problem(".".join(map(str, path)), message))

    experiment = decode_experiment(load({"model": dict(model)}), registry)
    blueprint = make_blueprint(experiment["model"], observation_space, action_space, report, registry)
    if blueprint is None:
        raise ConfigError(problems)
    return blueprint.build(seed or 0, experiment.resolved(), initialized=seed is not None)
