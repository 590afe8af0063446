"""Several experts under local indices: what a run starts from, and what it leaves behind.

In: where completed experts are, and which of them a run holds. Out: weights and moments by parameter name, of these
experts and of no others; on disk as safetensors, of which single experts are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from policysmith.errors import SkillError
from policysmith.skills.experts.expert_versions import Expert, load_expert
from policysmith.skills.experts.parameter_names import expert_name, of_expert, renumbered
from policysmith.store.files import find_directory, replace_directory
from policysmith.store.json_files import damaged, json_bytes, parsed
from policysmith.store.tensor_bytes import pack, stored_tensor, unpacked

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MoECheckpoint", "build_moe_checkpoint", "load_moe_checkpoint"]

MODEL, MOMENTS, ABOUT = "model.safetensors", "optimizer.safetensors", "checkpoint.json"


@dataclass(frozen=True, eq=False)
class MoECheckpoint:
    """`weights` under `actor_networks_<local>.…`; `moments` under `<parameter>/<moment>`, of those that learn.

    `frames` (in all) and `versions` (that it began from) are by local index; `bytes_read` is what reading it took.
    """

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    frames: Mapping[int, int] = field(default_factory=dict)
    versions: Mapping[int, str] = field(default_factory=dict)
    bytes_read: int = 0

    @property
    def experts(self) -> list[int]:
        """Local indices of those it holds."""
        return sorted({found.number for found in map(expert_name, self.weights) if found is not None})

    def expert(self, local: int, index: int, skill_name: str, parents: Iterable[str] = ()) -> Expert:
        """One of them by itself, under its global index."""
        weights, moments = of_expert(self.weights, local), of_expert(self.moments, local)
        return Expert(skill_name, index, weights, moments, self.frames.get(local, 0), tuple(parents))

    def save(self, directory: str | Path) -> Path:
        """Store it in `directory`, all at once."""
        if strangers := [name for name in self.weights if expert_name(name) is None]:
            raise SkillError(f"{strangers[0]!r} is no parameter of an expert, and would be lost")
        # Without a policy's prefixes, so that a model of either kind finds its own.
        files = {
            name: pack(
                {_numbered(key): stored_tensor(key, tensor, copy=False) for key, tensor in tensors.items()}, name
            )
            for name, tensors in ((MODEL, self.weights), (MOMENTS, self.moments))
            if tensors or name == MODEL
        }
        about = {
            "format": 1,
            "frames": {str(local): frames for local, frames in self.frames.items()},
            "versions": {str(local): version for local, version in self.versions.items()},
        }
        replace_directory(Path(directory), {**files, ABOUT: json_bytes(about, ABOUT)}, {MODEL, MOMENTS, ABOUT})
        return Path(directory)


def build_moe_checkpoint(
    dependencies: Iterable[str],
    global_to_local: Mapping[int, int],
    completed_skills: Mapping[str, Mapping[str, Any]],
    *,
    trained: Collection[int] = (),
) -> MoECheckpoint:
    """What a run starts from: of the experts in `global_to_local`, those that exist; the others start fresh.

    An expert that exists is taken up whether it is a dependency or the one to be continued. The moments of `trained`
    experts (global indices) come with them. Only the files of these experts are read. Raises `SkillError`.
    """
    places = _places(list(dependencies), global_to_local, completed_skills)
    weights: dict[str, Tensor] = {}
    moments: dict[str, Tensor] = {}
    experts = {expert: load_expert(place, moments=expert in trained) for expert, place in places.items()}
    for index, expert in experts.items():
        if expert.index != index:
            raise SkillError(f"{places[index]}: holds expert {expert.index}, but is registered as expert {index}")
        weights |= renumbered(expert.weights, global_to_local[index])
        moments |= renumbered(expert.moments, global_to_local[index])
    _check_alike(experts)
    locals_ = {global_to_local[index]: expert for index, expert in experts.items()}
    return MoECheckpoint(
        weights,
        moments,
        {local: expert.frames for local, expert in locals_.items()},
        {local: expert.version for local, expert in locals_.items()},
        sum(expert.bytes_read for expert in experts.values()),
    )


def load_moe_checkpoint(directory: str | Path, experts: Collection[int] | None = None) -> MoECheckpoint:
    """What `MoECheckpoint.save` stored; of `experts` (local indices) alone, if given, whose bytes alone are read."""
    found = find_directory(Path(directory))
    if not (found / ABOUT).is_file() or not (found / MODEL).is_file():
        raise SkillError(f"{directory}: holds no checkpoint of experts: {ABOUT} or {MODEL} is missing")
    about = parsed(found / ABOUT, (found / ABOUT).read_bytes())
    weights, size = _read(found / MODEL, experts)
    moments, more = _read(found / MOMENTS, experts) if (found / MOMENTS).is_file() else ({}, 0)
    frames, versions = ({int(k): v for k, v in about[name].items()} for name in ("frames", "versions"))
    checkpoint = MoECheckpoint(weights, moments, frames, versions, size + more)
    if missing := sorted(set(experts or ()) - set(checkpoint.experts)):
        raise SkillError(f"{directory}: has no expert {missing[0]}; it holds {', '.join(map(str, checkpoint.experts))}")
    return checkpoint


def _read(file: Path, experts: Collection[int] | None) -> tuple[dict[str, Tensor], int]:
    """Tensors of these experts, and how many bytes of the file they are."""
    try:
        if experts is None:
            return _read_all(file)
        with safe_open(file, "pt") as tensors:
            names = {name: expert_name(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
            wanted = [name for name, found in names.items() if found and found.number in experts]
            read = {name: tensors.get_tensor(name) for name in wanted}
    except (SafetensorError, OSError) as error:
        raise damaged(file, f"it is no safetensors file: {error}") from None
    return read, sum(tensor.nbytes for tensor in read.values())


def _read_all(file: Path) -> tuple[dict[str, Tensor], int]:
    """Every expert's tensors: in one piece, which for many small ones is several times as fast as one by one."""
    read = {name: tensor for name, tensor in unpacked(file, file.read_bytes()).items() if expert_name(name)}
    return read, sum(tensor.nbytes for tensor in read.values())


def _places(
    dependencies: list[str], global_to_local: Mapping[int, int], completed: Mapping[str, Mapping[str, Any]]
) -> dict[int, Path]:
    """Where each expert that exists lies; one that lies in two places is a mistake, unless dependencies name one."""
    found: dict[int, dict[str, Path]] = {}
    for named_only in (True, False):
        known = set(found)
        for name, entry in completed.items():
            index = entry.get("expert_idx")
            if not isinstance(index, int) or index not in global_to_local or index in known:
                continue
            if named_only and name not in dependencies:
                continue
            if "path" not in entry:
                raise SkillError(f"the completed skill {name!r} has no path: where does its expert lie?")
            found.setdefault(index, {})[name] = Path(entry["path"])
    for index, places in found.items():
        if len(places) > 1 and len({place.resolve() for place in places.values()}) > 1:
            raise SkillError(f"expert {index} lies in different places for {', '.join(map(repr, places))}: give one")
    return {index: next(iter(places.values())) for index, places in sorted(found.items())}


def _check_alike(experts: Mapping[int, Expert]) -> None:
    """Experts of one run are networks of one shape."""
    shapes = {i: {n: tuple(w.shape) for n, w in expert.weights.items()} for i, expert in experts.items()}
    first = next(iter(shapes), None)
    for index, found in shapes.items():
        differing = sorted(name for name, _ in found.items() ^ shapes[first].items())  # type: ignore[index]
        if differing:
            name = differing[0]
            told = f"{found.get(name, 'missing')} and {shapes[first].get(name, 'missing')}"  # type: ignore[index]
            raise SkillError(f"experts {index} and {first} are of different shapes: {name} is {told}")


def _numbered(key: str) -> str:
    found = expert_name(key)
    assert found is not None
    return found.numbered
