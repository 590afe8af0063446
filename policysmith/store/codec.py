"""A policy as plain data and tensors, and back: the one place that knows what of a policy is stored.

In: an `ActorCritic`. Out: its configuration, each of its tensors once, and facts about its components; from the first
two the same policy is built again. `artifact` lays them into one directory, `policy_store` into one of many policies.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

import policysmith.parts  # noqa: F401 - its types, as those of policysmith.policy, fill the default registry
from policysmith.config.experiment import decode_experiment
from policysmith.config.load import Document
from policysmith.config.migrate import CURRENT_FORMAT
from policysmith.errors import CheckpointError, PolicysmithError
from policysmith.graph.plan import Plan
from policysmith.policy import ActorCritic, build_policy
from policysmith.registry import Registry
from policysmith.store.space_codec import decode_space, encode_space

__all__ = [
    "Encoded",
    "check_format",
    "damaged",
    "decode_policy",
    "encode_policy",
    "pack",
    "parsed",
    "sha256",
    "stored_tensor",
    "unfit_numbers",
    "unpacked",
    "version_of",
]

PACKAGES = ("torch", "tensordict", "gymnasium")
TensorSpec = getattr(safetensors, "TensorSpec", None)  # older versions take their tensors in another way
EMPTY = torch.zeros(1)
SHOWN_MISFITS = 12
RESTORE = "restore it from a copy, or save the policy anew"


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
    if misfits := _misfits(_unique(state), _unique(_planned_state(policy.plan))):
        raise CheckpointError(
            "the policy is not what its configuration describes and could not be loaded again; "
            f"change the configuration instead, and build it anew:\n{misfits}"
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
    policy = _built(config_file, config, registry)
    _fill(policy, weights, weights_file)
    return policy


def pack(tensors: Mapping[str, Tensor], file: str) -> bytes:
    """Tensors as the bytes of a safetensors file, called `file` in messages; equal tensors give equal bytes."""
    try:
        return _serialized(dict(tensors))
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        dtypes = ", ".join(sorted({str(tensor.dtype) for tensor in tensors.values()}))
        raise CheckpointError(f"{file}: tensors of {dtypes} cannot be stored as safetensors: {error}") from error


def _serialized(tensors: dict[str, Tensor]) -> bytes:
    """The library's own `save`, which looks at each tensor for thirty times as long as it takes to write small ones."""
    plain = all(tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in tensors.values())
    if TensorSpec is None or not plain or sys.byteorder != "little":
        return bytes(safetensors.torch.save(tensors, {"format": "pt"}))
    specs = {
        name: TensorSpec(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tensor.shape,
            data_ptr=tensor.data_ptr() or EMPTY.data_ptr(),  # one of no elements may lie nowhere
            data_len=tensor.nbytes,
        )
        for name, tensor in tensors.items()
    }
    return bytes(safetensors.serialize(specs, {"format": "pt"}))


def unpacked(file: str | Path, content: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises `CheckpointError` naming `file`."""
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise damaged(file, f"it is no safetensors file: {error}") from None


def parsed(file: str | Path, content: bytes) -> dict[str, Any]:
    """The JSON object that a file holds; raises `CheckpointError` naming `file`."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged(file, f"it is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise damaged(file, "it holds no JSON object")
    return data


def check_format(file: str | Path, data: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` for data of a format that is newer than ours."""
    found = data.get("format")
    if isinstance(found, int) and found > CURRENT_FORMAT:
        wanted = f"format {found} is newer than this policysmith understands ({CURRENT_FORMAT})"
        raise CheckpointError(f"{file}: {wanted}; pip install --upgrade policysmith")


def damaged(file: str | Path, reason: str) -> CheckpointError:
    """The error for a file that is not as it was written."""
    return CheckpointError(f"{file}: is damaged or was edited: {reason}; {RESTORE}")


def sha256(content: bytes) -> str:
    """As hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def stored_tensor(name: str, tensor: Any, *, copy: bool = True) -> Tensor:
    """The tensor on the CPU as the file format wants it, in memory of its own, or with `copy=False` as it lies there.

    Raises `CheckpointError`, also for numbers that are not finite: whoever loaded them could not act by them.
    """
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_meta:
        raise CheckpointError(f"{name}: only plain tensors with values can be stored, found {type(tensor).__name__}")
    if bad := unfit_numbers(tensor.detach()):
        raise CheckpointError(
            f"{name}: {bad:,} of {tensor.numel():,} numbers are not finite, and nothing of the kind is stored; go back "
            "to the last finite policy, or make a buffer that holds inf on purpose persistent=False"
        )
    return tensor.detach().to("cpu", copy=copy).contiguous()


def unfit_numbers(tensor: Tensor) -> int:
    """How many numbers of a tensor are NaN or inf."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return 0
    finite = torch.isfinite(tensor if tensor.element_size() > 1 else tensor.float())  # not known of 8-bit floats
    return 0 if finite.all() else int((~finite).sum())


@cache
def version_of(package: str) -> str:
    """The installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a copy of its sources
        return "unknown"


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
        "experiment": policy.config,
    }


def _components(policy: ActorCritic, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the manifest says of each component; equal hashes mean equal weights, whatever the component's name."""
    records: dict[str, Any] = {}
    for node in policy.plan.nodes:
        prefix = f"components.{node.name}."
        tensors = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
        records[node.name] = {
            "type": node.part.type,
            "role": node.role,
            "parameters": sum(p.numel() for p in policy.components[node.name].parameters()),
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


def _misfits(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """A line for each tensor that is missing, not wanted, or of another shape or dtype."""
    lines = [f"  {name}: missing" for name in wanted if name not in found]
    lines += [f"  {name}: unexpected" for name in found if name not in wanted]
    for name, tensor in found.items():
        if name in wanted and _kind(tensor) != _kind(wanted[name]):
            lines.append(f"  {name}: {_kind(tensor)}, expected {_kind(wanted[name])}")
    more = len(lines) - SHOWN_MISFITS
    return "\n".join(lines[:SHOWN_MISFITS] + ([f"  and {more} more"] if more > 0 else []))


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
            experiment.model,
            decode_space(config["observation_space"]),
            decode_space(config["action_space"]),
            registry,
            seed=0,
            observation=asdict(experiment.observation),
            config=experiment.resolved(),
        )
    except KeyError as error:
        raise CheckpointError(f"{file}: says nothing of {error}, so this is no whole policy; save it anew") from None
    except PolicysmithError as error:
        remedy = f"register the types of your own that it uses; policysmith {config.get('policysmith')} wrote it"
        raise CheckpointError(f"{file}: the policy cannot be built here: {error}\n{remedy}") from error


def _fill(policy: ActorCritic, stored: Mapping[str, Tensor], file: str) -> None:
    state = policy.state_dict(keep_vars=True)
    first = _first_names(state)
    found = {first.get(name, name): tensor for name, tensor in stored.items()}
    if misfits := _misfits(found, _unique(state)):
        remedy = "put back the two files of one save, or load it with the version that wrote it"
        raise CheckpointError(f"{file}: does not fit the policy its configuration describes; {remedy}:\n{misfits}")
    policy.load_state_dict({name: found[first[name]] for name in state})
