"""What a graph computes itself, as the policy's parameters or as the value: heads without weights."""

from __future__ import annotations

from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import ActionLayout, EventShape

__all__ = ["PolicyOutput", "ValueOutput"]


@register("policy_output", role="policy")
class PolicyOutput(nn.Module):
    """Distribution parameters (*, P) that another component gives, as the policy; ValueError for another number."""

    def __init__(self, event_shape: EventShape, layout: ActionLayout) -> None:
        super().__init__()
        wanted = (sum(size + free for size, free in layout),)
        if event_shape != wanted:
            raise ValueError(f"the space needs parameters of shape {wanted}, found {event_shape}")

    def forward(self, x: Tensor) -> Tensor:
        """x (*, P) → x."""
        return x


@register("value_output", role="value")
class ValueOutput(nn.Module):
    """One number (*, 1) or (*,) that another component gives, as the state value (*,); ValueError for more."""

    def __init__(self, event_shape: EventShape) -> None:
        super().__init__()
        if event_shape not in ((), (1,)):
            raise ValueError(f"a value is one number, found an event of shape {event_shape}")
        self.wrapped = event_shape == (1,)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, 1) or (*,) → (*,)."""
        return x.squeeze(-1) if self.wrapped else x
