"""The import path of earlier versions for `policysmith.dialects.flowrl`."""

from policysmith.dialects.flowrl.grammar import ImportedExperts, read

__all__ = ["ImportedExperts", "read"]
