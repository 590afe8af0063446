"""The original transformer factory: its policies over windows, and its flat `ModelConfig`."""

from typing import TYPE_CHECKING

from policysmith.lazy_names import lazy_names

if TYPE_CHECKING:
    from policysmith.dialects.trading_bot.grammar import import_checkpoint, read

__all__ = ["import_checkpoint", "read"]

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "policysmith.dialects.trading_bot.grammar"))
