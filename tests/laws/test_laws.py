"""Every law of `policysmith.testing` over every registered component, memories by laws of their own besides."""

from __future__ import annotations

import pytest

from policysmith.testing import LAWS, MEMORY_LAWS
from tests.thinning import thinned

from .cases import IDS, NAMES, REGISTRY, case_of, subject_of

# Laws that take long: how many of their cases the quick suite leaves to the slow one, and over what.
THINNED = {
    "copies_are_independent": thinned(IDS, 2),
    "exports": thinned(IDS, 3),
    "compiles_whole": thinned(NAMES, 4),
}
MEMORIES = [i for i in IDS if REGISTRY.entry("component", case_of(i)[0]).traits.get("stateful")]


def cases(law: str) -> list[object]:
    return [
        pytest.param(law, *row.values, marks=row.marks, id=f"{law}-{row.values[0]}")
        for row in THINNED.get(law, thinned(IDS, 1))
    ]


@pytest.mark.parametrize(("law", "case_id"), [row for law in LAWS for row in cases(law)])
def test_every_type_keeps_every_law(law, case_id):
    LAWS[law](subject_of(case_id))


@pytest.mark.parametrize("law", MEMORY_LAWS)
@pytest.mark.parametrize("case_id", MEMORIES)
def test_every_memory_keeps_the_laws_of_memories(law, case_id):
    MEMORY_LAWS[law](subject_of(case_id))


def test_there_are_memories_to_try():
    assert {"gru", "gtrxl", "lstm", "mingru", "transformer_memory"} <= set(MEMORIES)
