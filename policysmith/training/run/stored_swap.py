"""Hot-swap on disk: a stored policy with other components, and what of its training state still fits.

In: an artifact's directory and replacements by name. Out: the artifact, exchanged all at once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from policysmith.errors import CheckpointError, WiringError, did_you_mean
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import Registry, default_registry, load_plugins
from policysmith.store import load, load_training, save
from policysmith.store.artifact import MANIFEST
from policysmith.training.distribution.shards import below
from policysmith.training.optim.optimizers import (
    REST,
    STORED,
    STORED_BEFORE,
    Optimizers,
    by_rule,
    optimize,
    stored_state,
)

__all__ = ["swap_stored"]

log = logging.getLogger(__name__)
LEARNING, POOL = "learning/", "pool/"


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
    of that policy with its weights. The optimiser's moments of everything else are kept, rule by rule, and so are the
    weights that learn beside an average. Raises `WiringError` or `CheckpointError`; the artifact is then as it was.
    """
    registry = registry or default_registry
    load_plugins()
    if output is not None and (Path(output) / MANIFEST).is_file():
        raise CheckpointError(f"{output} holds a policy already: choose another directory")
    policy, training = load(directory, registry=registry), load_training(directory)
    tensors = None if training is None else dict(training.tensors)
    optimizer = None if tensors is None else _optimizer(policy, tensors, registry)
    before = {id(p) for p in policy.parameters()}
    for name, new in replacements.items():
        donor = _donor(new, registry)
        policy.replace_component(
            name,
            new if donor is None else _described(*donor),
            optimizer=optimizer,
            keep_weights=keep_weights and donor is None,
            resize=resize,
            seed=seed,
            registry=registry,
        )
        if donor is not None:
            policy.components[name].load_state_dict(donor[0].components[donor[1]].state_dict())
    state = None
    if training is not None and tensors is not None and optimizer is not None:
        state = replace(training, tensors=_following(tensors, policy, optimizer, before))
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


def _optimizer(policy: ActorCritic, tensors: Mapping[str, Tensor], registry: Registry) -> Optimizers:
    """The optimiser of the run that stored these tensors, with its moments. Raises `CheckpointError` for others'."""
    section = policy.config.get("training")
    algorithm = None if section is None else registry.decode("algorithm", section).build()
    usual, rules = getattr(algorithm, "usual", None), getattr(algorithm, "optimizers", {})
    moments = by_rule(stored_state(tensors))

    def made(extra: Sequence[nn.Parameter] = ()) -> Optimizers:
        return optimize(policy.components, usual, rules, extra=[*policy.parameters(), *extra])

    optimizer = made()
    if strangers := _strangers(optimizer, moments):
        optimizer = made(strangers)
    shapes = {key: tuple(p.shape) for key, p in _places(optimizer)}
    for key, tensor in moments.items():
        place, _, name = key.rpartition("/")
        if place not in shapes or tuple(tensor.shape) not in ((), shapes[place]):
            found = f"{name} {tuple(tensor.shape)} of parameter {place!r}"
            raise CheckpointError(f"the training state has {found}, which the optimiser of the policy has no place for")
    optimizer.load_state(moments)
    return optimizer


def _places(optimizer: Optimizers) -> Iterator[tuple[str, nn.Parameter]]:
    """Where in a stored state each parameter's moments are."""
    for name, inner in optimizer.torch_optimizers.items():
        parameters = [p for group in inner.param_groups for p in group["params"]]
        yield from ((f"{name}/{i}", p) for i, p in enumerate(parameters))


def _strangers(optimizer: Optimizers, moments: Mapping[str, Tensor]) -> list[nn.Parameter]:
    """Stand-ins for what the run trained besides the policy: an objective's own networks, after the policy's weights.

    They are known by their moments alone, matrices before vectors where the usual rule has weight decay.
    """
    shapes: dict[int, Sequence[int]] = {}
    for key, tensor in below(f"{REST}/", moments).items():
        place, _, _ = key.rpartition("/")
        if place.isdecimal():
            shapes[int(place)] = max(shapes.get(int(place), ()), tuple(tensor.shape), key=len)
    groups = optimizer.torch_optimizers[REST].param_groups
    found: list[nn.Parameter] = []
    start = 0
    for i, group in enumerate(groups):
        last = i == len(groups) - 1
        there = [place for place, shape in shapes.items() if last or len(shape) >= 2]
        first, end = start + len(group["params"]), max(there, default=-1) + 1
        found += [nn.Parameter(torch.empty(*shapes.get(place, (0, 0)))) for place in range(first, end)]
        start = max(first, end)
    return found


def _following(
    tensors: Mapping[str, Tensor], policy: ActorCritic, optimizer: Optimizers, before: set[int]
) -> dict[str, Tensor]:
    """The training state's tensors once the policy is another: moments, and weights that learn beside an average."""
    ours = (STORED, STORED_BEFORE, LEARNING, POOL)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(ours)}
    if len(below(POOL, tensors)):
        log.warning(
            "past opponents of self-play have the component that was replaced: a resumed run begins without any"
        )
    learning = below(LEARNING, tensors)
    for name, parameter in policy.named_parameters() if learning else ():
        if parameter.requires_grad:
            stays = id(parameter) in before and name in learning
            kept[f"{LEARNING}{name}"] = learning[name] if stays else parameter.detach().clone()
    return kept | {f"{STORED}{name}": tensor for name, tensor in optimizer.state().items()}
