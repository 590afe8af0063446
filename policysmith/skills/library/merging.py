"""Two versions of one expert become one: the mean of their weights.

In: an expert's folder and two of its versions. Out: an `Expert` with both as parents. An optimiser's moments belong to
the weights that they were made with: the mean has none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policysmith.errors import SkillError
from policysmith.skills.experts.expert_versions import METADATA, Expert, load_expert, read_metadata, version_folder
from policysmith.skills.library.head_history import now

__all__ = ["ancestors", "average_of"]


def average_of(folder: Path, first: str, second: str, run: str | None = None) -> Expert:
    """The mean of two versions, neither of which comes from the other.

    It is credited with the frames of both; those of their common ancestor count once. Raises `SkillError`.
    """
    one, two = (load_expert(version_folder(folder, version)) for version in (first, second))
    before_second = set(ancestors(folder, second))
    common = next((version for version in ancestors(folder, first) if version in before_second), None)
    if common in (first, second):
        later = second if common == first else first
        raise SkillError(f"{folder}: {later[:12]} comes from {str(common)[:12]}, so there is nothing to average")
    shapes = [{name: tuple(tensor.shape) for name, tensor in expert.weights.items()} for expert in (one, two)]
    if shapes[0] != shapes[1]:
        raise SkillError(f"{folder}: {first[:12]} and {second[:12]} are networks of different sizes")
    weights = {name: (tensor.double() + two.weights[name].double()).div(2).to(tensor.dtype)
               for name, tensor in one.weights.items()}  # fmt: skip
    shared = read_metadata(version_folder(folder, common))["frames"] if common is not None else 0
    about: dict[str, Any] = {"status": "averaged", "run": run, "created": now()}
    parents = (first, second)
    return Expert(one.skill_name, one.index, weights, {}, one.frames + two.frames - shared, parents, about)


def ancestors(folder: Path, version: str) -> Iterator[str]:
    """The version, its parents, theirs, and so on, the nearest first; those that were pruned end their line."""
    waiting, seen = deque([version]), {version}
    while waiting:
        found = waiting.popleft()
        place = version_folder(folder, found)
        if not (place / METADATA).is_file():
            continue
        yield found
        fresh = [parent for parent in read_metadata(place)["parents"] if parent not in seen]
        seen.update(fresh)
        waiting.extend(fresh)
