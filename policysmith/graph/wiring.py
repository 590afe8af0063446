"""Keys become edges: who produces what, in which order components run, and what does not fit.

In: component specs and the names of the graph's inputs. Out: `Wiring`, or every problem found.
"""

from __future__ import annotations

import graphlib
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from policysmith.errors import did_you_mean

__all__ = ["Keyed", "ReportProblem", "Wiring", "expand_key", "topological_order", "wire"]

ReportProblem = Callable[[tuple[str | int, ...], str], None]


class Keyed(Protocol):
    """Whatever reads and writes keys."""

    @property
    def in_keys(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def out_keys(self) -> Sequence[str]: ...  # noqa: D102


@dataclass(frozen=True)
class Wiring:
    """Components in the order they run, with each one's inputs as single edges."""

    order: tuple[str, ...]
    sources: Mapping[str, tuple[str, ...]]
    producers: Mapping[str, str]


def expand_key(key: str, inputs: Iterable[str]) -> list[str]:
    """The graph inputs a key stands for: itself, or every leaf below it (`observation` → `observation.image`, …)."""
    names = list(inputs)
    return [key] if key in names else [name for name in names if name.startswith(f"{key}.")]


def wire(components: Mapping[str, Keyed], inputs: Sequence[str], report: ReportProblem) -> Wiring | None:
    """Edges and order; problems go to `report(path, message)` and make the result None."""
    failed = False

    def problem(path: tuple[str | int, ...], message: str) -> None:
        nonlocal failed
        failed = True
        report(path, message)

    producers = _producers(components, inputs, problem)
    known = [*inputs, *producers, *_prefixes(inputs)]
    sources: dict[str, tuple[str, ...]] = {}
    for name, component in components.items():
        edges: list[str] = []
        for key in component.in_keys:
            found = [key] if key in producers else expand_key(key, inputs)
            if not found:
                available = ", ".join([*inputs, *producers])
                hint = did_you_mean(key, known) or f"; there are: {available}"
                problem((name, "in_keys"), f"nothing produces {key!r}{hint}")
            edges += found
        sources[name] = tuple(edges)
    if failed:
        return None
    needs = {n: [producers[e] for e in sources[n] if e in producers] for n in components}
    order = topological_order(needs, lambda cycle: problem((cycle[0],), f"a cycle: {' → '.join(cycle)}"))
    return None if order is None else Wiring(tuple(order), sources, producers)


def topological_order(needs: Mapping[str, Sequence[str]], on_cycle: Callable[[list[str]], None]) -> list[str] | None:
    """Names so that each comes after what it needs; ties in the order of declaration, whatever the hash seed."""
    rank = {name: index for index, name in enumerate(needs)}
    sorter = graphlib.TopologicalSorter(needs)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        on_cycle(list(error.args[1]))
        return None
    order: list[str] = []
    ready = [rank[n] for n in sorter.get_ready()]
    heapq.heapify(ready)
    names = list(needs)
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(name)
        sorter.done(name)
        for fresh in sorter.get_ready():
            heapq.heappush(ready, rank[fresh])
    return order


def _producers(components: Mapping[str, Keyed], inputs: Sequence[str], report: ReportProblem) -> dict[str, str]:
    producers: dict[str, str] = {}
    taken = {*inputs, *_prefixes(inputs)}
    for name, component in components.items():
        for key in component.out_keys:
            if key in taken:
                report((name, "out_keys"), f"{key!r} is the name of an input; choose another")
            elif key in producers:
                report((name, "out_keys"), f"{key!r} is produced twice, by {producers[key]!r} and by {name!r}")
            else:
                producers[key] = name
    return producers


def _prefixes(inputs: Sequence[str]) -> list[str]:
    return sorted({name[:i] for name in inputs for i, c in enumerate(name) if c == "."})
