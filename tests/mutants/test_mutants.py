"""Tests of the tests: every planned fault turns the test that it names red."""

import subprocess
import sys

import pytest

from tests.mutants.planned import MUTANTS
from tests.mutants.run import ROOT

ROOMS = sorted({mutant.file.partition("/")[0] for mutant in MUTANTS})


def test_every_mutation_has_its_place():
    """One whose line was rewritten would prove nothing; move it along with the line."""
    for mutant in MUTANTS:
        text = (ROOT / "policysmith" / mutant.file).read_text(encoding="utf-8")
        assert text.count(mutant.old) == 1 and mutant.old != mutant.new, str(mutant)
        file, _, function = mutant.test.partition("::")
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), mutant.test
    assert len(set(MUTANTS)) == len(MUTANTS) >= 80


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("room", ROOMS)
def test_every_planned_fault_turns_a_test_red(room):
    command = [sys.executable, "-m", "tests.mutants", f"{room}/", "--processes", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
