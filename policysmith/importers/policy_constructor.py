"""The import path of earlier versions for `policysmith.dialects.policy_constructor`."""

from policysmith.dialects.policy_constructor.grammar import ImportedGraph, import_graph, read, write_graph

__all__ = ["ImportedGraph", "import_graph", "read", "write_graph"]
