"""Tuning: the best values of a configuration's search spaces, found by trials (extra `tune`)."""

from policysmith.tuning.search import Search
from policysmith.tuning.study import Trial
from policysmith.tuning.tune import TuneResult, tune

__all__ = ["Search", "Trial", "TuneResult", "tune"]
