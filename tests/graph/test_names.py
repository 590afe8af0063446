"""What runs a graph lives in `policysmith.compile`; the paths that users were told still lead there."""

from __future__ import annotations

import pytest

import policysmith.compile as compiled
import policysmith.compile.executors as executors
import policysmith.graph
import policysmith.graph.executors


@pytest.mark.parametrize("name", ["ComponentContainer", "GraphModel", "NestedGraph", "build_model"])
def test_the_graph_offers_what_runs_it(name):
    assert getattr(policysmith.graph, name) is getattr(compiled, name)


@pytest.mark.parametrize("name", policysmith.graph.executors.__all__)
def test_executors_are_found_by_the_path_they_had(name):
    assert getattr(policysmith.graph.executors, name) is getattr(executors, name)
