"""Legacy actions: pairs of a type and a parameter, and the flat index that policies choose. A flat actions.

In: action types with their largest parameter. Out: names, indices, pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policysmith.errors import ConfigError, Problem

__all__ = ["ActionPairs", "embedding_rows"]


class ActionPairs:
    """Action types by name with their largest parameter, in the environment's order: {"noop": 0, "move": 1}.

    A type with largest parameter m stands for m + 1 actions; they are numbered one type after another. Raises
    `ConfigError` for what is no such mapping.
    """

    def __init__(self, largest: Mapping[str, int]) -> None:
        if not isinstance(largest, Mapping) or not largest or not all(map(_is_entry, largest.items())):
            raise ConfigError([Problem("actions", f"expected action types with their largest parameter, {{'noop': 0, "
                                                  f"'move': 1}}, found {largest!r}")])  # fmt: skip
        self.largest = dict(largest)
        self._pairs = np.array([(k, p) for k, m in enumerate(largest.values()) for p in range(m + 1)])
        sizes = [m + 1 for m in largest.values()]
        self._starts = np.cumsum([0, *sizes[:-1]])

    def __len__(self) -> int:
        """A."""
        return len(self._pairs)

    @property
    def names(self) -> list[str]:
        """A name for each flat action, as legacy embeddings know it: `move_0`, `move_1`."""
        return [f"{name}_{p}" for name, m in self.largest.items() for p in range(m + 1)]

    def pairs(self, flat: Any) -> np.ndarray:
        """Flat indices (*,) → (type, parameter) (*, 2), what the environment's step takes."""
        return self._pairs[np.asarray(flat)]

    def flat(self, pairs: Any) -> np.ndarray:
        """(type, parameter) (*, 2) → flat indices (*,)."""
        pairs = np.asarray(pairs)
        return self._starts[pairs[..., 0]] + pairs[..., 1]


def embedding_rows(
    actions: Mapping[str, int] | None,
    trained: Mapping[str, int] | None,
    active: list[int] | None,
    problems: list[Problem],
) -> list[int]:
    """The row of each action in the table of embeddings: counted from 1 in the order of their first activation.

    `active` are the rows stored with the weights, of the `trained` actions or else of `actions`. `problems` gains
    what is missing or does not fit.
    """
    before = None if trained is None else ActionPairs(trained)
    pairs = before if actions is None else ActionPairs(actions)
    if pairs is None:
        if not active:
            told = "the file does not tell the actions: give them with --actions noop=0,move=1 (actions=)"
            problems.append(Problem("actions", told))
        return active or [1]
    known = active or list(range(1, len(before or pairs) + 1))
    if len(known) != len(before or pairs):
        problems.append(
            _wrong_count(len(pairs), len(known)) if before is None else _wrong_count(len(before), len(known), True)
        )
        return list(range(1, len(pairs) + 1))
    table = dict(zip((before or pairs).names, known, strict=True))
    for name in pairs.names:
        table.setdefault(name, max(table.values()) + 1)
    return [table[name] for name in pairs.names]


def _wrong_count(count: int, active: int, trained: bool = False) -> Problem:
    if trained:
        return Problem("trained_actions", f"are {count}, and the weights had {active} active")
    return Problem(
        "actions",
        f"are {count}, and the weights had {active} active: give those as well, with --trained-actions "
        "(trained_actions=), so that actions find their embeddings",
    )


def _is_entry(entry: tuple[Any, Any]) -> bool:
    name, largest = entry
    return isinstance(name, str) and type(largest) is int and largest >= 0
