"""Which expert a parameter belongs to, by its name: matched as a whole, so that expert 1 is not 10 or 11.

In: names as `ActorCriticMoE` and policies of type `moe` have them. Out: role, number, and what follows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, TypeVar

from policysmith.errors import SkillError

__all__ = ["ExpertName", "expert_name", "of_expert", "renumbered"]

T = TypeVar("T")
MANY = 4096  # names whose parts are remembered: the same few come again with every run
# In a policy the networks lie in its two heads, whatever those are called.
PATTERN = re.compile(
    r"(?:components\.\w+\.)?(actor|critic)_networks_(0|[1-9][0-9]*)\.(layers_(?:0|[1-9][0-9]*)\.[\w./]+)"
)
ALONE = re.compile(r"(actor|critic)_network\.(layers_(?:0|[1-9][0-9]*)\.[\w./]+)")


class ExpertName(NamedTuple):
    """`actor_networks_3.layers_0.weight` → role `actor`, number 3, rest `layers_0.weight`."""

    role: str
    number: int
    rest: str

    @property
    def alone(self) -> str:
        """The name in the expert's own file, where it has no number."""
        return f"{self.role}_network.{self.rest}"

    @property
    def numbered(self) -> str:
        """The name in a checkpoint of several experts."""
        return f"{self.role}_networks_{self.number}.{self.rest}"


@lru_cache(MANY)
def expert_name(name: str) -> ExpertName | None:
    """The parts of a name, or None for one that is no expert's."""
    match = PATTERN.fullmatch(name)
    return None if match is None else ExpertName(match[1], int(match[2]), match[3])


def of_expert(tensors: Mapping[str, T], index: int) -> dict[str, T]:
    """What belongs to one expert, under the names of its own file."""
    named = ((expert_name(name), value) for name, value in tensors.items())
    return {found.alone: value for found, value in named if found is not None and found.number == index}


def renumbered(tensors: Mapping[str, T], index: int) -> dict[str, T]:
    """What an expert's own file holds, under the names of expert `index` of several."""
    fresh = {}
    for name, value in tensors.items():
        role, rest = _name_alone(name)
        fresh[ExpertName(role, index, rest).numbered] = value
    return fresh


@lru_cache(MANY)
def _name_alone(name: str) -> tuple[str, str]:
    match = ALONE.fullmatch(name)
    if match is None:
        raise SkillError(f"{name!r} is no parameter of an expert: expected actor_network.layers_<n>.… or critic_…")
    return match[1], match[2]
