"""What every actor-critic offers, whoever wrote it. B is the batch."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from policysmith.policy.structures import LegalMask, Observation, Tensors

__all__ = ["ActorCriticProtocol"]


@runtime_checkable
class ActorCriticProtocol(Protocol):
    """The four calls that trainers rely on."""

    def forward(self, obs: Observation) -> tuple[Tensor, Tensor]:
        """Observation → (policy output (B, …), value (B,)). Logits (B, A) for Discrete actions."""
        ...

    def get_action_and_value(
        self, obs: Observation, legal_mask: LegalMask = None, deterministic: bool = False
    ) -> tuple[Any, Tensor, Tensor]:
        """Observation → (action, log_prob (B,), value (B,)); illegal actions are never chosen."""
        ...

    def evaluate_actions(
        self, obs: Observation, actions: Tensors, legal_mask: LegalMask = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Observation and actions → (log_prob (B,), entropy (B,), value (B,)), differentiable."""
        ...

    def get_value(self, obs: Observation) -> Tensor:
        """Observation → value (B,)."""
        ...
