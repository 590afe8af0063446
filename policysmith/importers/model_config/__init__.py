"""Policies of the original transformer factory, by their checkpoint and flat configuration."""

from policysmith.importers.model_config.importer import import_checkpoint, read

__all__ = ["import_checkpoint", "read"]
