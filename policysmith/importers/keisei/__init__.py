"""The networks of the trainer for board games: its residual tower and its `se_resnet`."""

from policysmith.importers.keisei.importer import import_checkpoint, read

__all__ = ["import_checkpoint", "read"]
