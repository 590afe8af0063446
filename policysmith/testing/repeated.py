"""Law 1 for what repeats: a plan that multiplies says what a part of that size is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policysmith.graph.measure import Measure
from policysmith.graph.plan import measure_built
from policysmith.graph.repeats import changed, multiplied, repeats
from policysmith.registry import PartSpec
from policysmith.testing.case import PART, Subject, require

__all__ = ["what_repeats_is_multiplied"]

# More than a plan builds when it multiplies, and no multiple of a turn of two or three that nobody told it of.
COUNT = 7


def what_repeats_is_multiplied(subject: Subject) -> None:
    """Weights, operations, state and shapes of seven layers are those multiplied from few; so for every such option."""
    node = subject.plan().node(PART)

    def measure(part: PartSpec, known: Mapping[str, Any]) -> Measure:
        frozen = tuple(sorted(known.items()))
        return measure_built(part, node.inputs, node.spec.arguments, node.joins, frozen, node.spec.call)

    for place, (_, step) in repeats(node.part, node.context):
        part, known = changed(node.part, node.context, {place: COUNT * step})
        found, planned = measure(part, known), multiplied(part, known, measure, small=1)
        name = ".".join(map(str, place))
        require(found == planned, f"{COUNT * step} of {name} make {found}, multiplied from few it is {planned}")
