"""Whether what was planned has room: its weights, what it keeps between steps, and what each component gives.

In: a plan and the limits. Out: a sentence at the component that asks for most, with what it needs and what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from policysmith.config.limits import Limits
from policysmith.graph.measure import Measure
from policysmith.graph.spec import ComponentSpec
from policysmith.registry import PartSpec

__all__ = ["fits", "reason_of"]

Report = Callable[[tuple[str | int, ...], str], None]
# torch's own words for tensors whose size no 64 bits hold.
TOO_LARGE = ("Storage size calculation overflowed", "Overflow when unpacking long", "numel: integer multiplication")


class Planned(Protocol):
    """What is asked of a component in a plan."""

    @property
    def spec(self) -> ComponentSpec: ...
    @property
    def part(self) -> PartSpec: ...
    @property
    def measure(self) -> Measure: ...
    @property
    def name(self) -> str: ...
    @property
    def state_bytes(self) -> int: ...


def fits(nodes: Sequence[Planned], limits: Limits, report: Report) -> bool:
    """Whether weights, state and values of one row have room; what has none is reported, each once."""
    own = [node for node in nodes if node.spec.use is None]
    good = True

    def told(those: Sequence[Planned], size: Callable[[Planned], int], problem: str | None) -> None:
        nonlocal good
        if problem:
            most = max(those, key=size)
            others = sum(size(node) > 0 for node in those) > 1
            who = f"with {most.part.type!r}, which is most of it, the model" if others else repr(most.part.type)
            report((most.name,), f"{who} {problem}")
            good = False

    sizes: dict[str, tuple[Sequence[Planned], Callable[[Planned], int]]] = {
        "weights": (own, _weight_bytes),
        "what it keeps between two steps": (nodes, lambda node: node.state_bytes),
        "one row of its outputs": (nodes, lambda node: sum(spec.bytes for spec in node.measure.outputs)),
    }
    for purpose, (those, size) in sizes.items():
        told(those, size, limits.memory_problem(sum(map(size, those)), purpose))
    told(own, _objects, limits.modules_problem(sum(map(_objects, own))))
    return good


def reason_of(error: Exception) -> str:
    """The first line of what an error says; torch's words for a size beyond 64 bits in ours."""
    reason = str(error).split("\n", 1)[0] or type(error).__name__
    if isinstance(error, OverflowError) or any(words in reason for words in TOO_LARGE):
        return "a tensor of it would need more than 8 EiB"
    return reason


def _weight_bytes(node: Planned) -> int:
    return node.measure.parameter_bytes + node.measure.buffer_bytes


def _objects(node: Planned) -> int:
    return node.measure.objects
