"""One expert on disk: its head, and every version there has been, each under the hash of its weights.

In: weights, the optimiser's moments, and where they come from. Out: `expert_<global>_policy/` with the head's files and
`versions/<hash>/`; files change all at once, and a version is never changed again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policysmith.errors import CheckpointError, SkillError
from policysmith.store.files import find_directory, replace_directory
from policysmith.store.json_files import check_format, damaged, json_bytes, parsed, sha256
from policysmith.store.tensor_bytes import pack, stored_tensor, unpacked

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Expert",
    "head_version",
    "load_expert",
    "read_metadata",
    "save_head",
    "save_version",
    "version_folder",
    "versions_of",
    "METADATA",
]

FORMAT = 1
MODEL, MOMENTS, METADATA, VERSIONS = "model.safetensors", "optimizer.safetensors", "metadata.json", "versions"
HASH = re.compile("[0-9a-f]")
OWN = frozenset({MODEL, MOMENTS, METADATA})


@dataclass(frozen=True, eq=False)
class Expert:
    """One expert's weights under `actor_network.…` and `critic_network.…`, and what is known of them.

    `moments` are the optimiser's, under `<parameter>/<moment>`; `frames` are those that trained it in all; `parents`
    are the versions it was trained from; `about` is plain data on how it came to be; `bytes_read` is what loading it
    took.
    """

    skill_name: str
    index: int
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    frames: int = 0
    parents: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    bytes_read: int = 0

    @cached_property
    def version(self) -> str:
        """The hash of the weights: equal weights are one version."""
        return sha256(self._packed())

    def _packed(self) -> bytes:
        return pack({name: stored_tensor(name, self.weights[name], copy=False) for name in sorted(self.weights)}, MODEL)


def save_version(directory: Path, expert: Expert, unless: Collection[str | None] = ()) -> str:
    """Keep the expert as a version of `directory`, unless it is one, or one of `unless`; returns its hash."""
    packed = expert._packed()
    version = vars(expert)["version"] = sha256(packed)
    place = version_folder(directory, version)
    if version not in unless and not (place / METADATA).is_file():
        replace_directory(place, _files(expert, packed), OWN)
    return version


def save_head(directory: Path, version: str, beside: Mapping[str, bytes] | None = None) -> None:
    """Make a version the head: the one that runs start from. Files `beside` it change in the same instant."""
    place = version_folder(directory, version)
    files = {name: (place / name).read_bytes() for name in sorted(OWN) if (place / name).is_file()}
    files |= beside or {}
    replace_directory(directory, files, OWN | set(beside or ()))


def version_folder(directory: Path, version: str) -> Path:
    """Where a version of the expert in `directory` lies."""
    return directory / VERSIONS / version


def versions_of(directory: Path) -> list[str]:
    """The hashes of the versions that lie in `directory`, sorted."""
    folder = os.path.join(directory, VERSIONS)  # noqa: PTH118 - it is asked for often
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except FileNotFoundError:
        return []
    return [name for name in names if HASH.match(name) and os.path.isfile(f"{folder}/{name}/{METADATA}")]  # noqa: PTH113


def head_version(directory: Path) -> str | None:
    """The hash of the head, None where there is none."""
    found = find_directory(directory)
    if not (found / METADATA).is_file():
        return None
    return str(read_metadata(found)["files"][MODEL]["sha256"])


def load_expert(directory: str | Path, *, moments: bool = False) -> Expert:
    """The expert whose head, or version, lies in `directory`; `moments` too if asked for.

    Nothing beside this expert is read. Raises `SkillError` where there is none, `CheckpointError` for damaged files.
    """
    while True:
        found = find_directory(Path(directory))
        before = _identity(found)
        try:
            return _load(found, directory, moments)
        except (CheckpointError, FileNotFoundError):
            if _identity(find_directory(Path(directory))) == before:
                raise  # else another head has come in between: read that one


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        stat = directory.stat()
        return stat.st_ino, stat.st_ctime_ns
    except OSError:
        return None


def _load(found: Path, directory: str | Path, moments: bool) -> Expert:
    if not (found / METADATA).is_file():
        raise SkillError(f"{directory}: holds no expert: there is no {METADATA}; give the folder expert_<n>_policy")
    metadata = read_metadata(found)
    contents = {
        name: _verified(found / name, metadata["files"][name])
        for name in (MODEL, MOMENTS)
        if name in metadata["files"] and (name == MODEL or moments)
    }
    tensors = {name: unpacked(found / name, content) for name, content in contents.items()}
    expert = Expert(
        metadata["skill_name"],
        metadata["global_expert_idx"],
        tensors[MODEL],
        tensors.get(MOMENTS, {}),
        metadata["frames"],
        tuple(metadata["parents"]),
        metadata.get("about", {}),
        sum(map(len, contents.values())),
    )
    vars(expert)["version"] = metadata["files"][MODEL]["sha256"]  # the file was compared with it: no need to pack again
    return expert


def _files(expert: Expert, packed: bytes) -> dict[str, bytes]:
    files = {MODEL: packed}
    if expert.moments:
        moments = {name: stored_tensor(name, expert.moments[name], copy=False) for name in sorted(expert.moments)}
        files[MOMENTS] = pack(moments, MOMENTS)
    metadata = {
        "format": FORMAT,
        "skill_name": expert.skill_name,
        "global_expert_idx": expert.index,
        "frames": expert.frames,
        "parents": list(expert.parents),
        "about": dict(expert.about),
        "files": {name: {"size": len(content), "sha256": sha256(content)} for name, content in files.items()},
    }
    return {**files, METADATA: json_bytes(metadata, METADATA)}


def read_metadata(directory: Path) -> dict[str, Any]:
    """What is known of the head or version in `directory`, without its weights."""
    file = directory / METADATA
    metadata = parsed(file, file.read_bytes())
    check_format(file, metadata)
    wanted = {"skill_name": str, "global_expert_idx": int, "frames": int, "parents": list, "files": dict}
    if wrong := [name for name, kind in wanted.items() if not isinstance(metadata.get(name), kind)]:
        raise damaged(file, f"{', '.join(wrong)} is missing or of another kind")
    return metadata


def _verified(file: Path, record: Mapping[str, Any]) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}); restore it from a copy") from None
    if len(content) != record["size"] or sha256(content) != record["sha256"]:
        raise damaged(file, f"it does not match {METADATA}")
    return content
