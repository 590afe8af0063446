"""Fixed divisors that bring features of different units to one scale."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import EventShape, Positive

__all__ = ["Divide"]

Divisors = Annotated[list[Positive], MinLen(1)]


@register("divide")
class Divide(nn.Module):
    """Each channel divided by a number of its own: (*, C, …) → (*, C, …), or (*, F) → (*, F).

    Raises ValueError where `by` has not one entry a channel.

    Args:
        by: What each number of the last axis is divided by; one for all of them, or as many as there are.
    """

    by: Tensor

    def __init__(self, event_shape: EventShape, by: Divisors) -> None:
        super().__init__()
        if not event_shape or len(by) != event_shape[0]:
            raise ValueError(f"by has {len(by)} entries for an event of shape {event_shape}: one a channel is needed")
        shape = (len(by), *[1] * (len(event_shape) - 1))
        # Of the configuration, so no part of the state.
        self.register_buffer("by", torch.tensor(by, dtype=torch.float32).reshape(shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, C, …) → (*, C, …)."""
        return x / self.by
