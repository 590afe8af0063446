"""Tests of the tests: every planned fault turns one of the tests that it names red."""

import pytest

from tests.mutants.planned import EXPLAINED, MUTANTS
from tests.mutants.run import ROOT, copied, is_seen


@pytest.fixture(scope="module")
def folder():
    with copied() as place:
        yield place


def test_every_mutation_has_its_place():
    """One whose line was rewritten would prove nothing; move it along with the line."""
    for mutant in [*MUTANTS, *EXPLAINED]:
        text = (ROOT / "policysmith" / mutant.file).read_text(encoding="utf-8")
        assert text.count(mutant.old) == 1 and mutant.old != mutant.new, str(mutant)
        assert all((ROOT / name).exists() for name in mutant.tests.split()), mutant.tests
    assert len(set(MUTANTS)) == len(MUTANTS) >= 80


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_planned_fault_turns_a_test_red(mutant, folder):
    assert is_seen(mutant, folder), f"survives: {mutant}"
