"""The board-game trainer keisei: its residual tower, its `se_resnet`, and the names of its factory."""

from typing import TYPE_CHECKING

from policysmith.lazy_names import lazy_names

if TYPE_CHECKING:
    from policysmith.dialects.keisei.grammar import import_checkpoint, read

__all__ = ["import_checkpoint", "read"]

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "policysmith.dialects.keisei.grammar"))
