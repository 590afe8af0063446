"""A policy as plain data and tensors, and back: the one place that knows what of a policy is stored.

In: an `ActorCritic`. Out: its configuration, each of its tensors once, and facts about its components; from the first
two the same policy is built again. `artifact` lays them into one directory, `policy_store` into one of many policies.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import policysmith.parts  # noqa: F401 - its types, as those of policysmith.policy, fill the default registry
from policysmith.config.experiment import decode_experiment
from policysmith.config.limits import Limits
from policysmith.config.load import Document
from policysmith.config.migrate import CURRENT_FORMAT
from policysmith.errors import CheckpointError, PolicysmithError
from policysmith.graph.plan import Plan
from policysmith.policy import ActorCritic, build_policy
from policysmith.policy.sections import ObservationOptions
from policysmith.registry import Registry
from policysmith.store.json_files import check_format, version_of
from policysmith.store.schemas import Config, checked
from policysmith.store.space_codec import decode_space, encode_space
from policysmith.store.tensor_bytes import stored_tensor

__all__ = ["Encoded", "decode_policy", "encode_policy"]

PACKAGES = ("torch", "tensordict", "gymnasium")
SHOWN_MISMATCHES = 12


@dataclass(frozen=True, eq=False)
class Encoded:
    """What is stored of a policy: nothing of it shares memory with the policy.

    `weights` holds each tensor once, by the first of its names in the state dict; `components` what manifests say of
    each, where equal `sha256` mean equal weights, whatever the component's name.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    components: dict[str, dict[str, Any]]


def encode_policy(policy: ActorCritic) -> Encoded:
    """The policy as data; raises `CheckpointError` for one that could not be built again."""
    _check_described(policy)
    state = policy.state_dict(keep_vars=True)
    if mismatches := _mismatches(_unique(state), _unique(_planned_state(policy.plan))):
        raise CheckpointError(
            "the policy is not what its configuration describes and could not be loaded again; "
            f"change the configuration instead, and build it anew:\n{mismatches}"
        )
    weights = {name: stored_tensor(name, tensor) for name, tensor in _unique(state).items()}
    everything = {name: weights[first] for name, first in _first_names(state).items()}
    return Encoded(_config(policy), weights, _components(policy, everything))


def decode_policy(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], registry: Registry, config_file: str, weights_file: str
) -> ActorCritic:
    """The policy of an `Encoded`'s configuration and weights; the files are what messages name.

    Draws nothing from torch's global generator. Raises `CheckpointError`.
    """
    check_format(config_file, config)
    checked(config_file, config, Config)
    policy = _built(config_file, config, registry)
    _fill(policy, weights, weights_file)
    return policy


def _check_described(policy: ActorCritic) -> None:
    """Refuse a policy that could not be built again."""
    if replaced := policy.config.get("replaced"):
        names = ", ".join(map(repr, replaced))
        raise CheckpointError(
            f"{names} was replaced by a module that no configuration describes: register its class and swap in a "
            "description of it, or roll back"
        )


def _config(policy: ActorCritic) -> dict[str, Any]:
    if "model" not in policy.config:
        raise CheckpointError(
            "the policy does not know its configuration, without which it cannot be built again; "
            "build it with policysmith.build, or give build_policy config=experiment.resolved()"
        )
    return {
        "format": CURRENT_FORMAT,
        "policysmith": version_of("policysmith"),
        "versions": {**{name: version_of(name) for name in PACKAGES}, "python": platform.python_version()},
        "observation_space": encode_space(policy.observations.space, policy.observations.exclude),
        "action_space": encode_space(policy.actions.space),
        "readings": {name: reading.encode() for name, reading in policy.observations.readings.items()},
        "experiment": policy.config,
    }


def _components(policy: ActorCritic, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the manifest says of each component; equal hashes mean equal weights, whatever the component's name."""
    records: dict[str, Any] = {}
    for node in policy.plan.nodes:
        component = node.name
        prefix = f"components.{component}."
        tensors = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
        records[component] = {
            "type": node.part.type,
            "role": node.role,
            "parameters": sum(p.numel() for p in policy.components[component].parameters()),
            "sha256": _content_hash(tensors),
            **({"shares": node.spec.use} if node.spec.use else {}),
        }
    return records


def _content_hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _first_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """For each name the first one of the same tensor: components that share weights have it under a name each."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}


def _unique(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: state[name] for name, first in _first_names(state).items() if name == first}


def _planned_state(plan: Plan) -> dict[str, Tensor]:
    """The state that a build of the plan would have, on the meta device."""
    with torch.device("meta"):
        own = [node for node in plan.nodes if node.spec.use is None]
        components = {node.name: node.component(node.part.build(**node.context)) for node in own}
    states = {name: component.state_dict(keep_vars=True) for name, component in components.items()}
    return {
        f"components.{node.name}.{name}": tensor
        for node in plan.nodes
        for name, tensor in states[node.spec.use or node.name].items()
    }


def _mismatches(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """A line for each tensor that is missing, not wanted, or of another shape or dtype."""
    lines = [f"  {name}: missing" for name in wanted if name not in found]
    lines += [f"  {name}: unexpected" for name in found if name not in wanted]
    for name, tensor in found.items():
        if name in wanted and _kind(tensor) != _kind(wanted[name]):
            lines.append(f"  {name}: {_kind(tensor)}, expected {_kind(wanted[name])}")
    more = len(lines) - SHOWN_MISMATCHES
    return "\n".join(lines[:SHOWN_MISMATCHES] + ([f"  and {more} more"] if more > 0 else []))


def _kind(tensor: Any) -> str:
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _built(file: str, config: Mapping[str, Any], registry: Registry) -> ActorCritic:
    """The policy with fresh weights; the seed is only there to keep the global generator out of it."""
    try:
        # Not through config.load: nothing in a resolved experiment is a template or an interpolation any more.
        experiment = decode_experiment(Document(config["experiment"], {}, {}, Path().absolute()), registry)
        return build_policy(
            experiment["model"],
            decode_space(config["observation_space"]),
            decode_space(config["action_space"]),
            registry,
            seed=0,
            observation={**asdict(experiment.of(ObservationOptions)), "stored": config.get("readings", {})},
            config=experiment.resolved(),
            limits=experiment.find(Limits),
        )
    except KeyError as error:
        raise CheckpointError(f"{file}: says nothing of {error}, so this is no whole policy; save it anew") from None
    except PolicysmithError as error:
        remedy = f"register the types of your own that it uses; policysmith {config.get('policysmith')} wrote it"
        raise CheckpointError(f"{file}: the policy cannot be built here: {error}\n{remedy}") from error
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise CheckpointError(f"{file}: the policy cannot be built: {reason}; no policysmith writes that") from error


def _fill(policy: ActorCritic, stored: Mapping[str, Tensor], file: str) -> None:
    state = policy.state_dict(keep_vars=True)
    first = _first_names(state)
    found = {first.get(name, name): tensor for name, tensor in stored.items()}
    if mismatches := _mismatches(found, _unique(state)):
        remedy = "put back the two files of one save, or load it with the version that wrote it"
        raise CheckpointError(f"{file}: does not fit the policy its configuration describes; {remedy}:\n{mismatches}")
    policy.load_state_dict({name: found[first[name]] for name in state})
