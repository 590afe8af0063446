"""Which experts a run holds, and under which numbers: library-wide (global) indices to contiguous local ones.

In: a skill's dependencies by name, and where completed skills are. Out: the two maps, each the other's inverse.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from policysmith.errors import SkillError, did_you_mean

__all__ = ["Remapping", "build_remapping", "expert_index", "remapping_of", "check_inverse"]


class Remapping(NamedTuple):
    """Unpacks as `(global_to_local, local_to_global)`."""

    global_to_local: dict[int, int]
    local_to_global: dict[int, int]


def build_remapping(
    dependencies: Iterable[str], global_expert_idx: int, completed_skills: Mapping[str, Mapping[str, Any]]
) -> Remapping:
    """The experts of `dependencies` and the one to be trained, numbered from 0 in the order of their global indices.

    Dependencies named twice, or with one expert, are one; the expert to be trained may be among them, which continues
    it. Raises `SkillError` naming every dependency that is not completed.
    """
    names = list(dict.fromkeys(dependencies))
    unknown = [f"{name!r}{did_you_mean(name, completed_skills)}" for name in names if name not in completed_skills]
    if unknown:
        known = ", ".join(map(repr, completed_skills)) or "none"
        raise SkillError(f"not completed, so nothing can depend on it: {', '.join(unknown)}; completed are {known}")
    experts = [expert_index(completed_skills[name].get("expert_idx"), f"the expert_idx of {name!r}") for name in names]
    return remapping_of([*experts, expert_index(global_expert_idx, "global_expert_idx")])


def remapping_of(experts: Collection[int]) -> Remapping:
    """Contiguous local indices in the order of the global ones."""
    ordered = sorted(set(experts))
    remapping = Remapping({g: i for i, g in enumerate(ordered)}, dict(enumerate(ordered)))
    check_inverse(*remapping)
    return remapping


def check_inverse(global_to_local: Mapping[int, int], local_to_global: Mapping[int, int]) -> None:
    """Raise `SkillError` unless the maps are each other's inverse and the local indices count from 0."""
    if sorted(global_to_local.values()) != list(range(len(global_to_local))):
        raise SkillError(f"local indices must be 0, 1, 2, …, each once; found {dict(global_to_local)}")
    if {local: expert for expert, local in global_to_local.items()} != dict(local_to_global):
        raise SkillError(f"{dict(local_to_global)} is not the inverse of {dict(global_to_local)}")


def expert_index(value: Any, what: str) -> int:
    """The value, which is an expert's index."""
    if type(value) is not int or value < 0:
        raise SkillError(f"{what} must be a whole number ≥ 0, found {value!r}")
    return value
