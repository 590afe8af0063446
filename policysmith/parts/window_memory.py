"""A memory run over a whole window, from its initial state, at every call: no state passes from step to step.

In: (B, T, F). Out: (B, T, D).
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from policysmith.registry import PartSpec, Slot, part, register
from policysmith.types import EventShape

__all__ = ["WindowMemory"]


@register("window_memory")
class WindowMemory(nn.Module):
    """Any component with memory (`lstm`, `gru`, `transformer_memory` …) over a window: (T, F) → (T, its width).

    Raises ValueError where `memory` is a component without one.

    Args:
        memory: The memory that reads the window from its first step to its last.
    """

    def __init__(
        self,
        event_shape: EventShape,
        memory: Annotated[PartSpec | str, Slot("component")] = "lstm",
    ) -> None:
        super().__init__()
        if len(event_shape) != 2:
            raise ValueError(f"a window (T, features) is expected, found {tuple(event_shape)}")
        spec = part("component", memory)
        if not spec.entry.traits.get("stateful"):
            raise ValueError(f"memory: {spec.type!r} keeps nothing between steps; use lstm, gru or transformer_memory")
        self.memory = spec.build(flat_features=event_shape[-1], features=event_shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, F) → (B, T, D)."""
        y, _ = self.memory.unroll(x, self.memory.initial_state(len(x)), None)
        return y
