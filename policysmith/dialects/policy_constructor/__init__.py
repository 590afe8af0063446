"""The original YAML policy constructor: graphs of schema version 1, and models of named networks."""

from typing import TYPE_CHECKING

from policysmith.lazy_names import lazy_names

if TYPE_CHECKING:
    from policysmith.dialects.policy_constructor.grammar import ImportedGraph, import_graph, read, write_graph

__all__ = ["ImportedGraph", "import_graph", "read", "write_graph"]

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "policysmith.dialects.policy_constructor.grammar"))
