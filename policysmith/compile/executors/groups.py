"""What of an order may run side by side: units that touch only their keys, and those that must run alone.

In: units in the order they run. Out: groups of them; a group with branches can be run so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from policysmith.compile.executors.branches import Branches, find_branches

__all__ = ["Group", "Unit", "grouped"]


@dataclass(frozen=True)
class Unit:
    """One component: the keys it reads and writes. `alone`: it may touch others too, so it keeps its place."""

    name: str
    reads: tuple[Any, ...]
    writes: tuple[Any, ...]
    alone: bool = False


@dataclass(frozen=True)
class Group:
    """Consecutive units; `branches` where some can run side by side, `inputs` are the keys read from before."""

    units: tuple[Unit, ...]
    branches: Branches | None
    inputs: tuple[Any, ...] = ()


@lru_cache(maxsize=256)
def grouped(units: tuple[Unit, ...]) -> tuple[Group, ...]:
    """The units in groups, in order."""
    groups: list[Group] = []
    run: list[Unit] = []
    for unit in units:
        if unit.alone:
            groups += [_group(run), Group((unit,), None)]
            run = []
        else:
            run.append(unit)
    return tuple(group for group in [*groups, _group(run)] if group.units)


def _group(units: list[Unit]) -> Group:
    producers = {key: unit.name for unit in units for key in unit.writes}
    needs = {u.name: [producers[key] for key in u.reads if producers.get(key, u.name) != u.name] for u in units}
    branches = find_branches([unit.name for unit in units], needs)
    if branches.width < 2 or _overlap({key for unit in units for key in (*unit.reads, *unit.writes)}):
        return Group(tuple(units), None)
    inputs = [key for unit in units for key in unit.reads if producers.get(key, unit.name) == unit.name]
    return Group(tuple(units), branches, tuple(dict.fromkeys(inputs)))


def _overlap(keys: Iterable[Any]) -> bool:
    """Whether one key holds another, as `h` does `("h", "a")`: what is read then depends on who ran before."""
    paths = {key if isinstance(key, tuple) else (key,) for key in keys}
    return any(path[:n] in paths for path in paths for n in range(1, len(path)))
