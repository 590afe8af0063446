"""The flowrl trainer of parallel skills: its experts, an actor and a critic for each."""

from typing import TYPE_CHECKING

from policysmith.lazy_names import lazy_names

if TYPE_CHECKING:
    from policysmith.dialects.flowrl.grammar import ImportedExperts, read

__all__ = ["ImportedExperts", "read"]

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "policysmith.dialects.flowrl.grammar"))
