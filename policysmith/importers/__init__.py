"""The import path of earlier versions for `policysmith.dialects`."""

from policysmith.dialects.imported import Imported, Importer, find_importer
from policysmith.registry import default_registry

__all__ = ["DIALECTS", "Imported", "Importer", "find_importer"]

DIALECTS = tuple(default_registry.names("grammar"))
