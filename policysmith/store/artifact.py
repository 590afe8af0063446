"""One policy as a directory that needs nothing beside itself: its configuration, spaces, weights and a manifest.

In: an `ActorCritic`, and for training what its loop needs to go on. Out: files with checksums, put in place all at
once, and the same policy again in any process. Files that others put into the directory stay in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from policysmith.config.migrate import CURRENT_FORMAT
from policysmith.config.regular_file import read_regular
from policysmith.errors import CheckpointError
from policysmith.policy import ActorCritic
from policysmith.registry import Registry, default_registry
from policysmith.store.codec import decode_policy, encode_policy
from policysmith.store.files import find_directory, replace_directory
from policysmith.store.json_files import check_format, damaged, json_bytes, parsed, sha256
from policysmith.store.schemas import Manifest, checked
from policysmith.store.tensor_bytes import pack, stored_tensor, unpacked

__all__ = ["TrainingState", "check_target", "load", "load_training", "save", "MANIFEST", "OWN", "TRAINING"]

T = TypeVar("T")

CONFIG, MODEL, MANIFEST = "config.json", "model.safetensors", "manifest.json"
OPTIMIZER, TRAINING = "optimizer.safetensors", "training_state.json"
OWN = frozenset({CONFIG, MODEL, MANIFEST, OPTIMIZER, TRAINING})


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
    try:
        check_target(directory)
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


def check_target(directory: Path) -> None:
    """Refuse to replace what is no artifact; raises `CheckpointError`."""
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
    encoded = encode_policy(policy)
    files = {CONFIG: json_bytes(encoded.config, CONFIG), MODEL: pack(encoded.weights, MODEL)}
    if training is not None:
        tensors = {name: stored_tensor(name, tensor) for name, tensor in training.tensors.items()}
        files[OPTIMIZER] = pack(tensors, OPTIMIZER)
        files[TRAINING] = json_bytes(training.data, TRAINING)
    manifest = {
        "format": CURRENT_FORMAT,
        "files": {name: {"size": len(content), "sha256": sha256(content)} for name, content in files.items()},
        "components": encoded.components,
        "experts": _experts(encoded.config["experiment"]),
    }
    return {**files, MANIFEST: json_bytes({**manifest, "checksum": _checksum(manifest)}, MANIFEST)}


def _experts(experiment: Mapping[str, Any]) -> dict[str, int]:
    """Of a model of skills' experts: each task's, by its number in the library."""
    experts = experiment["model"].get("experts")
    return {str(task): number for task, number in enumerate(experts)} if isinstance(experts, list) else {}


def _checksum(manifest: Mapping[str, Any]) -> str:
    """Of all the manifest says but its checksum, however it is laid out."""
    said = {key: value for key, value in manifest.items() if key != "checksum"}
    return sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode())


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
        return directory, stat.st_ino, stat.st_ctime_ns, read_regular(directory / MANIFEST)
    except OSError:
        return None


def _load(directory: Path, registry: Registry) -> ActorCritic:
    contents = _verified(directory, _manifest(directory), (CONFIG, MODEL))
    file, weights = directory / CONFIG, directory / MODEL
    config = parsed(file, contents[CONFIG])
    check_format(file, config)  # before the weights are looked at: a newer format may hold them in another way
    return decode_policy(config, unpacked(weights, contents[MODEL]), registry, str(file), str(weights))


def _load_training(directory: Path) -> TrainingState | None:
    manifest = _manifest(directory)
    if OPTIMIZER not in manifest["files"]:
        return None
    contents = _verified(directory, manifest, (OPTIMIZER, TRAINING))
    tensors = unpacked(directory / OPTIMIZER, contents[OPTIMIZER])
    return TrainingState(tensors, parsed(directory / TRAINING, contents[TRAINING]))


def _manifest(directory: Path) -> dict[str, Any]:
    """The manifest, which is as it was written."""
    if not directory.is_dir():
        what = "is a file; a policy is stored as a directory" if directory.exists() else "there is no such directory"
        raise CheckpointError(f"{directory}: {what}; give one that policysmith.save has written")
    file = directory / MANIFEST
    if not file.is_file():
        raise CheckpointError(f"{directory}: holds no {MANIFEST}, so it is no stored policy, or one not copied whole")
    manifest = parsed(file, _read(file))
    check_format(file, manifest)
    if manifest.get("checksum") != _checksum(manifest):
        raise damaged(file, "its checksum does not match")
    return checked(file, manifest, Manifest)


def _verified(directory: Path, manifest: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, bytes]:
    """The contents of files, which are as they were written."""
    contents = {}
    for name in names:
        file, record = directory / name, manifest["files"].get(name)
        if record is None:
            raise CheckpointError(f"{directory / MANIFEST}: lists no {name}, so this is no whole policy; save it anew")
        content = _read(file)
        if len(content) != record["size"]:
            raise damaged(file, f"it has {len(content):,} bytes and had {record['size']:,}")
        if sha256(content) != record["sha256"]:
            raise damaged(file, "its sha256 does not match the manifest")
        contents[name] = content
    return contents


def _read(file: Path) -> bytes:
    try:
        return read_regular(file, None)
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise CheckpointError(f"{file}: {reason}; copy the whole directory again from where it was saved") from None
