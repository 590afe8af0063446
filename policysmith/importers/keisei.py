"""The import path of earlier versions for `policysmith.dialects.keisei`."""

from policysmith.dialects.keisei.grammar import import_checkpoint, read

__all__ = ["import_checkpoint", "read"]
