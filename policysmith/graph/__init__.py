"""Components and their wiring: from checked specs to a plan, modules, and the code that runs them."""

from policysmith.graph.calls import CallPlan
from policysmith.graph.component import Component, TensorComponent
from policysmith.graph.container import ComponentContainer
from policysmith.graph.factory_model import factory_model
from policysmith.graph.legacy import LegacyComponent
from policysmith.graph.model import GraphModel, build_model
from policysmith.graph.nested import NestedGraph
from policysmith.graph.plan import Plan, TensorSpec
from policysmith.graph.spec import ComponentSpec, GraphSpec

__all__ = [
    "CallPlan",
    "Component",
    "ComponentContainer",
    "ComponentSpec",
    "GraphModel",
    "GraphSpec",
    "LegacyComponent",
    "NestedGraph",
    "Plan",
    "TensorComponent",
    "TensorSpec",
    "build_model",
    "factory_model",
]
