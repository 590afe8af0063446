"""Agents of the legacy component system, by their YAML and weights: `read`, and what its callers need besides."""

from policysmith.importers.metta.importer import ActionPairs, import_agent, pack_state, read, unpack_state

__all__ = ["ActionPairs", "import_agent", "pack_state", "read", "unpack_state"]
