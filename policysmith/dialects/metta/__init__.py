"""The legacy component system: its agents, their memory, and the names of its modules."""

from typing import TYPE_CHECKING

from policysmith.lazy_names import lazy_names

if TYPE_CHECKING:
    from policysmith.dialects.metta.grammar import ActionPairs, import_agent, pack_state, read, unpack_state

__all__ = ["ActionPairs", "import_agent", "pack_state", "read", "unpack_state"]

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "policysmith.dialects.metta.grammar"))
