"""The import path of earlier versions for `policysmith.dialects.trading_bot`."""

from policysmith.dialects.trading_bot.grammar import import_checkpoint, read

__all__ = ["import_checkpoint", "read"]
