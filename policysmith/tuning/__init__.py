"""Tuning: the best values of a configuration's search spaces, found by trials (extra `tune`)."""

from policysmith.tuning.run_search import TuneResult, tune
from policysmith.tuning.search import Search
from policysmith.tuning.study import Trial

__all__ = ["Search", "Trial", "TuneResult", "tune"]
