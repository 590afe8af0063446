"""One policy as a directory that needs nothing beside itself: its configuration, spaces, weights and a manifest.

In: an `ActorCritic`, and for training what its loop needs to go on. Out: files with checksums, put in place all at
once, and the same policy again in any process. Files that others put into the directory stay in it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

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
from policysmith.registry import Registry, default_registry
from policysmith.store.files import find_directory, json_bytes, replace_directory
from policysmith.store.space_codec import decode_space, encode_space

__all__ = ["TrainingState", "load", "load_training", "save"]

T = TypeVar("T")

CONFIG, MODEL, MANIFEST = "config.json", "model.safetensors", "manifest.json"
OPTIMIZER, TRAINING = "optimizer.safetensors", "training_state.json"
OWN = frozenset({CONFIG, MODEL, MANIFEST, OPTIMIZER, TRAINING})
PACKAGES = ("torch", "tensordict", "gymnasium")
SHOWN_MISFITS = 12


@dataclass(frozen=True, eq=False)
class TrainingState:
    """What a training run needs to go on: tensors of any dtype by name, and plain data (JSON keeps tuples as lists)."""

    tensors: Mapping[str, Tensor]
    data: Mapping[str, Any]


def save(policy: ActorCritic, directory: str | Path, *, training: TrainingState | None = None) -> Path:
    """Store the policy in `directory`, in place of the artifact there, all at once; returns the directory.

    Files in the directory that are not the artifact's own stay: the same files, where the file system has hard links.

    Raises:
        CheckpointError: the directory holds something else than an artifact, the policy is not what its configuration
            describes, or the files can't be written; the directory is then as it was.
    """
    directory = Path(directory)
    _check_described(policy)
    try:
        _check_target(directory)
        replace_directory(directory, _contents(policy, training), OWN)
    except OSError as error:
        remedy = "check that its parent directory can be written to, is on the same file system, and has room"
        raise CheckpointError(f"{directory}: cannot be written: {error}; {remedy}") from error
    return directory


def load(directory: str | Path, *, device: torch.device | str = "cpu", registry: Registry | None = None) -> ActorCritic:
    """The policy stored in `directory`, in eval mode on `device`; draws nothing from torch's global generator.

    Types of your own must be registered before, in `registry` or the default one.

    Raises:
        CheckpointError: there is no artifact, it is damaged, of a newer format, or can't be built here.
    """
    policy = _settled(Path(directory), lambda found: _load(found, registry or default_registry))
    return policy.to(device).eval()


def load_training(directory: str | Path) -> TrainingState | None:
    """The training state stored beside the policy, tensors on the CPU; None if there is none. Raises as `load`."""
    return _settled(Path(directory), _load_training)


def _check_described(policy: ActorCritic) -> None:
    """Refuse a policy that could not be built again."""
    if replaced := policy.config.get("replaced"):
        names = ", ".join(map(repr, replaced))
        raise CheckpointError(
            f"{names} was replaced by a module that no configuration describes: register its class and swap in a "
            "description of it, or roll back"
        )


def _check_target(directory: Path) -> None:
    """Refuse to replace what is no artifact."""
    target = directory.resolve()
    if Path.cwd().is_relative_to(target):
        remedy = "save to a directory below it, or from elsewhere"
        raise CheckpointError(f"{directory}: is or holds the working directory, which a save would replace; {remedy}")
    remedy = "choose another directory, or move this one away"
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{directory}: is a file, and an artifact is a directory; {remedy}")
    if target.is_dir() and any(target.iterdir()) and not _is_artifact(target):
        raise CheckpointError(f"{directory}: holds files but no policy, and is left as it is; {remedy}")


def _is_artifact(directory: Path) -> bool:
    """Whether there is a manifest of ours, in whatever state; other programs call files so, too."""
    manifest = directory / MANIFEST
    return manifest.is_file() and MODEL.encode() in _read(manifest)


def _contents(policy: ActorCritic, training: TrainingState | None) -> dict[str, bytes]:
    """Every file by its name."""
    state = policy.state_dict(keep_vars=True)
    if misfits := _misfits(_unique(state), _unique(_planned_state(policy.plan))):
        raise CheckpointError(
            "the policy is not what its configuration describes and could not be loaded again; "
            f"change the configuration instead, and build it anew:\n{misfits}"
        )
    weights = {name: _stored(name, tensor) for name, tensor in _unique(state).items()}
    files = {CONFIG: json_bytes(_config(policy), CONFIG), MODEL: _pack(weights, MODEL)}
    if training is not None:
        files[OPTIMIZER] = _pack({name: _stored(name, tensor) for name, tensor in training.tensors.items()}, OPTIMIZER)
        files[TRAINING] = json_bytes(training.data, TRAINING)
    everything = {name: weights[first] for name, first in _first_names(state).items()}
    manifest = {
        "format": CURRENT_FORMAT,
        "files": {name: {"size": len(content), "sha256": _sha256(content)} for name, content in files.items()},
        "components": _components(policy, everything),
        "experts": {},
    }
    return {**files, MANIFEST: json_bytes({**manifest, "checksum": _checksum(manifest)}, MANIFEST)}


def _config(policy: ActorCritic) -> dict[str, Any]:
    if "model" not in policy.config:
        raise CheckpointError(
            "the policy does not know its configuration, without which it cannot be built again; "
            "build it with policysmith.build, or give build_policy config=experiment.resolved()"
        )
    return {
        "format": CURRENT_FORMAT,
        "policysmith": _version("policysmith"),
        "versions": {**{name: _version(name) for name in PACKAGES}, "python": platform.python_version()},
        "observation_space": encode_space(policy.observations.space),
        "action_space": encode_space(policy.actions.space),
        "experiment": policy.config,
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a copy of its sources
        return "unknown"


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


def _stored(name: str, tensor: Any) -> Tensor:
    """The tensor on the CPU in memory of its own, as the file format wants it."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_meta:
        raise CheckpointError(f"{name}: only plain tensors with values can be stored, found {type(tensor).__name__}")
    return tensor.detach().to("cpu", copy=True).contiguous()


def _pack(tensors: Mapping[str, Tensor], file: str) -> bytes:
    try:
        return safetensors.torch.save(dict(tensors), {"format": "pt"})
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        dtypes = ", ".join(sorted({str(tensor.dtype) for tensor in tensors.values()}))
        raise CheckpointError(f"{file}: tensors of {dtypes} cannot be stored as safetensors: {error}") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _checksum(manifest: Mapping[str, Any]) -> str:
    """Of all the manifest says but its checksum, however it is laid out."""
    said = {key: value for key, value in manifest.items() if key != "checksum"}
    return _sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode())


def _settled(directory: Path, read: Callable[[Path], T]) -> T:
    """What `read` finds; it reads anew when a save has put another artifact in place meanwhile."""
    while True:
        found = find_directory(directory)
        before = _identity(found)
        try:
            return read(found)
        except CheckpointError:
            if _identity(find_directory(directory)) == before:
                raise
        except OSError as error:
            raise CheckpointError(f"{directory}: cannot be read: {error}; check its permissions") from error


def _identity(directory: Path) -> tuple[Any, ...] | None:
    try:
        stat = directory.stat()
        return directory, stat.st_ino, stat.st_ctime_ns, (directory / MANIFEST).read_bytes()
    except OSError:
        return None


def _load(directory: Path, registry: Registry) -> ActorCritic:
    contents = _verified(directory, _manifest(directory), (CONFIG, MODEL))
    file = directory / CONFIG
    config = _parsed(file, contents[CONFIG])
    _check_format(file, config)
    policy = _built(file, config, registry)
    _fill(policy, _unpacked(directory / MODEL, contents[MODEL]), directory / MODEL)
    return policy


def _load_training(directory: Path) -> TrainingState | None:
    manifest = _manifest(directory)
    if OPTIMIZER not in manifest["files"]:
        return None
    contents = _verified(directory, manifest, (OPTIMIZER, TRAINING))
    tensors = _unpacked(directory / OPTIMIZER, contents[OPTIMIZER])
    return TrainingState(tensors, _parsed(directory / TRAINING, contents[TRAINING]))


def _manifest(directory: Path) -> dict[str, Any]:
    """The manifest, which is as it was written."""
    if not directory.is_dir():
        what = "is a file; a policy is stored as a directory" if directory.exists() else "there is no such directory"
        raise CheckpointError(f"{directory}: {what}; give one that policysmith.save has written")
    file = directory / MANIFEST
    if not file.is_file():
        raise CheckpointError(f"{directory}: holds no {MANIFEST}, so it is no stored policy, or one not copied whole")
    manifest = _parsed(file, _read(file))
    _check_format(file, manifest)
    if manifest.get("checksum") != _checksum(manifest):
        raise _damaged(file, "its checksum does not match")
    return manifest


def _verified(directory: Path, manifest: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, bytes]:
    """The contents of files, which are as they were written."""
    contents = {}
    for name in names:
        file, record = directory / name, manifest["files"].get(name)
        if record is None:
            raise CheckpointError(f"{directory / MANIFEST}: lists no {name}, so this is no whole policy; save it anew")
        content = _read(file)
        if len(content) != record["size"]:
            raise _damaged(file, f"it has {len(content):,} bytes and had {record['size']:,}")
        if _sha256(content) != record["sha256"]:
            raise _damaged(file, "its sha256 does not match the manifest")
        contents[name] = content
    return contents


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise CheckpointError(f"{file}: {reason}; copy the whole directory again from where it was saved") from None


def _damaged(file: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{file}: is damaged or was edited: {reason}; restore it from a copy, or save the policy anew"
    )


def _parsed(file: Path, content: bytes) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(file, f"it is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise _damaged(file, "it holds no JSON object")
    return data


def _check_format(file: Path, data: Mapping[str, Any]) -> None:
    found = data.get("format")
    if isinstance(found, int) and found > CURRENT_FORMAT:
        wanted = f"format {found} is newer than this policysmith understands ({CURRENT_FORMAT})"
        raise CheckpointError(f"{file}: {wanted}; pip install --upgrade policysmith")


def _built(file: Path, config: Mapping[str, Any], registry: Registry) -> ActorCritic:
    """The policy with fresh weights; the seed is only there to keep the global generator out of it."""
    try:
        # Not through config.load: nothing in a resolved experiment is a template or an interpolation any more.
        experiment = decode_experiment(Document(config["experiment"], {}, {}, file.parent.absolute()), registry)
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


def _unpacked(file: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise _damaged(file, f"it is no safetensors file: {error}") from None


def _fill(policy: ActorCritic, stored: Mapping[str, Tensor], file: Path) -> None:
    state = policy.state_dict(keep_vars=True)
    first = _first_names(state)
    found = {first.get(name, name): tensor for name, tensor in stored.items()}
    if misfits := _misfits(found, _unique(state)):
        remedy = "put back the two files of one save, or load it with the version that wrote it"
        raise CheckpointError(f"{file}: does not fit the policy that {CONFIG} describes; {remedy}:\n{misfits}")
    policy.load_state_dict({name: found[first[name]] for name in state})
