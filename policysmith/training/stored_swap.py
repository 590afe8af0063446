"""Hot-swap on disk: a stored policy with other components, and what of its training state still fits.

In: an artifact's directory and replacements by name. Out: the artifact, exchanged all at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from policysmith.errors import CheckpointError, WiringError, did_you_mean
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import Registry, default_registry
from policysmith.store import TrainingState, load, load_training, save

__all__ = ["swap_stored"]

ADAM = "adam/"


def swap_stored(
    directory: str | Path,
    replacements: Mapping[str, Any],
    *,
    output: str | Path | None = None,
    keep_weights: bool = False,
    resize: bool = False,
    seed: int | None = None,
    registry: Registry | None = None,
) -> ActorCritic:
    """Replace components of a stored policy and store it, in place unless `output` names another directory.

    A replacement is a type's name, a `{type: …}` mapping, or the text `artifact:component`, which takes the component
    of that policy with its weights. The optimiser's moments of everything else are kept. Raises `WiringError` or
    `CheckpointError`; the artifact is then as it was.
    """
    registry = registry or default_registry
    policy, training = load(directory, registry=registry), load_training(directory)
    before = {name: id(p) for name, p in policy.named_parameters()}
    names = [name for name, p in policy.named_parameters() if p.requires_grad]
    for name, new in replacements.items():
        donor = _donor(new, registry)
        spec = new if donor is None else _described(*donor)
        policy.replace_component(
            name, spec, keep_weights=keep_weights and donor is None, resize=resize, seed=seed, registry=registry
        )
        if donor is not None:
            policy.components[name].load_state_dict(donor[0].components[donor[1]].state_dict())
    kept = {name for name, p in policy.named_parameters() if before.get(name) == id(p)}
    state = None if training is None else replace(training, tensors=_moments(training, names, policy, kept))
    save(policy, output or directory, training=state)
    return policy


def _donor(new: Any, registry: Registry) -> tuple[ActorCritic, str] | None:
    """The policy and the component that `artifact:component` names; None for a description."""
    if not isinstance(new, str) or ":" not in new:
        return None
    place, _, component = new.rpartition(":")
    policy = load(place, registry=registry)
    if component not in policy.components:
        hint = did_you_mean(component, policy.components)
        raise WiringError(f"{place} has no component {component!r}{hint}; there are: {', '.join(policy.components)}")
    return policy, component


def _described(policy: ActorCritic, name: str) -> Any:
    spec = policy.plan.node(name).spec
    if spec.part is None:
        raise WiringError(f"{name!r} shares the weights of {spec.use!r}: name that one")
    return spec.part


def _moments(training: TrainingState, names: list[str], policy: ActorCritic, kept: set[str]) -> dict[str, Tensor]:
    """The training state's tensors with the moments of kept parameters at their new places."""
    places = {name: i for i, name in enumerate(n for n, p in policy.named_parameters() if p.requires_grad)}
    tensors: dict[str, Tensor] = {}
    for key, tensor in training.tensors.items():
        if not key.startswith(ADAM):
            tensors[key] = tensor
            continue
        index, name = key.removeprefix(ADAM).split("/")
        if int(index) >= len(names):
            raise CheckpointError(f"the training state has moments of parameter {index}, the policy has {len(names)}")
        parameter = names[int(index)]
        if parameter in kept:
            tensors[f"{ADAM}{places[parameter]}/{name}"] = tensor
    return tensors
