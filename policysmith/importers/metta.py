"""The import path of earlier versions for `policysmith.dialects.metta`."""

from policysmith.dialects.metta.grammar import ActionPairs, import_agent, pack_state, read, unpack_state

__all__ = ["ActionPairs", "import_agent", "pack_state", "read", "unpack_state"]
