"""What every actor-critic offers, whoever wrote it. B is the batch."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["ActorCriticProtocol"]


@runtime_checkable
class ActorCriticProtocol(Protocol):
    """The four calls that trainers rely on."""

    def forward(self, obs: Any) -> tuple[Tensor, Tensor]:
        """Observation → (policy output (B, …), value (B,)). Logits (B, A) for Discrete actions."""
        ...

    def get_action_and_value(
        self, obs: Any, legal_mask: Any = None, deterministic: bool = False
    ) -> tuple[Any, Tensor, Tensor]:
        """Observation → (action, log_prob (B,), value (B,)); illegal actions are never chosen."""
        ...

    def evaluate_actions(self, obs: Any, actions: Any, legal_mask: Any = None) -> tuple[Tensor, Tensor, Tensor]:
        """Observation and actions → (log_prob (B,), entropy (B,), value (B,)), differentiable."""
        ...

    def get_value(self, obs: Any) -> Tensor:
        """Observation → value (B,)."""
        ...
