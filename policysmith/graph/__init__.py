"""Components and their wiring: from checked specs to a plan with every shape, and to modules.

How a plan runs is `policysmith.compile`, whose public names are found here too.
"""

from typing import TYPE_CHECKING

from policysmith.graph.component import Component, TensorComponent
from policysmith.graph.operation import Operation
from policysmith.graph.plan import Plan, TensorSpec
from policysmith.graph.spec import ComponentSpec, GraphSpec
from policysmith.lazy_names import lazy_names

if TYPE_CHECKING:
    from policysmith.compile.container import ComponentContainer
    from policysmith.compile.late import LatePlan
    from policysmith.compile.model import GraphModel, build_model
    from policysmith.compile.nested import NestedGraph
    from policysmith.dialects.metta.legacy import LegacyComponent

__all__ = [
    "Component",
    "ComponentContainer",
    "ComponentSpec",
    "GraphModel",
    "GraphSpec",
    "LegacyComponent",
    "LatePlan",
    "NestedGraph",
    "Operation",
    "Plan",
    "TensorComponent",
    "TensorSpec",
    "build_model",
]

__getattr__ = lazy_names(
    __name__,
    {
        "ComponentContainer": "policysmith.compile.container",
        "GraphModel": "policysmith.compile.model",
        "LatePlan": "policysmith.compile.late",
        "LegacyComponent": "policysmith.dialects.metta.legacy",
        "NestedGraph": "policysmith.compile.nested",
        "build_model": "policysmith.compile.model",
    },
)
