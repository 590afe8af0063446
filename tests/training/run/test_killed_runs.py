"""Runs that are killed at random moments and resumed are the runs that were never stopped, to the last bit."""

import random

import pytest

from tests.training.run.killed_runs import KINDS, kill


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_goes_on_as_the_one_that_was_not(kind, tmp_path):
    found = kill(kind, 3, tmp_path, random.Random(kind))
    assert found.unlike == []
