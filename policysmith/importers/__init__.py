"""Policies and graphs of other systems become ours, one file a dialect.

In: a file as another system has written it. Out: an `ActorCritic` (or a `GraphModel`) with its weights, or every reason
why not.
"""

from policysmith.importers.dialects import DIALECTS, Imported, Importer, find_importer

__all__ = ["DIALECTS", "Imported", "Importer", "find_importer"]
