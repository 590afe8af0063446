"""Components and their wiring: from checked specs to a plan, modules, and the code that runs them."""

from typing import TYPE_CHECKING

from policysmith.graph.calls import CallPlan
from policysmith.graph.component import Component, TensorComponent
from policysmith.graph.container import ComponentContainer
from policysmith.graph.model import GraphModel, build_model
from policysmith.graph.nested import NestedGraph
from policysmith.graph.plan import Plan, TensorSpec
from policysmith.graph.spec import ComponentSpec, GraphSpec
from policysmith.lazy_names import lazy_names

if TYPE_CHECKING:
    from policysmith.dialects.metta.legacy import LegacyComponent

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
]

__getattr__ = lazy_names(__name__, {"LegacyComponent": "policysmith.dialects.metta.legacy"})
