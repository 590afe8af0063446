"""How a plan runs: steps, their trace, the code emitted from it, and the hosts that hold a program."""

from policysmith.compile.container import ComponentContainer
from policysmith.compile.model import GraphModel, build_model
from policysmith.compile.nested import NestedGraph
from policysmith.compile.program import Program

__all__ = ["ComponentContainer", "GraphModel", "NestedGraph", "Program", "build_model"]
