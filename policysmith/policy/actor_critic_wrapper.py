"""Two heads on a core of one's own: what makes a sequence model of any make an actor-critic.

In: windows (B, T, F). Out: logits (B, A) and value (B,); the core's last step is what the heads read.
"""

from __future__ import annotations

from gymnasium import spaces
from torch import Tensor, nn

from policysmith.ops.init import initialize
from policysmith.parts.transformer.pool import Pooling, SequencePool
from policysmith.policy.actions import ActionDistribution
from policysmith.policy.heads import ActionHead, ValueHead
from policysmith.policy.masks import legal_masks
from policysmith.policy.structures import LegalMask

__all__ = ["ActorCriticWrapper"]


class ActorCriticWrapper(nn.Module):
    """An actor-critic over Discrete actions from any module (B, T, F) → (B, T, dim), say a `DynamicTransformerCore`.

    It offers the calls of `ActorCriticProtocol`. The heads are initialised by role, the core is left as it comes.
    """

    def __init__(self, core: nn.Module, dim: int, action_dim: int, pooling: Pooling = "last") -> None:
        super().__init__()
        self.core, self.pooling = core, SequencePool(((1, dim),), pooling)
        self.actions = ActionDistribution(spaces.Discrete(action_dim))
        self.actor, self.critic = ActionHead(dim, self.actions.layout), ValueHead(dim)
        for module in (self.pooling, self.actor, self.critic):
            initialize(module)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """obs (B, T, F) → logits (B, A), value (B,)."""
        features = self.pooling(self.core(obs))
        return self.actor(features), self.critic(features)

    def get_action_and_value(
        self, obs: Tensor, legal_mask: LegalMask = None, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """obs (B, T, F) → action (B,), log_prob (B,), value (B,); `legal_mask` (B, A) or (A,)."""
        logits, value = self(obs)
        (action,), log_prob = self.actions.choose(logits, self._legal(legal_mask, logits), deterministic)
        return action, log_prob, value

    def evaluate_actions(
        self, obs: Tensor, actions: Tensor, legal_mask: LegalMask = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """obs (B, T, F), actions (B,) → log_prob (B,), entropy (B,), value (B,)."""
        logits, value = self(obs)
        log_prob, entropy = self.actions.evaluate(logits, [actions], self._legal(legal_mask, logits))
        return log_prob, entropy, value

    def get_value(self, obs: Tensor) -> Tensor:
        """obs (B, T, F) → value (B,)."""
        return self.critic(self.pooling(self.core(obs)))

    def _legal(self, mask: LegalMask, logits: Tensor) -> list[Tensor]:
        return [] if mask is None else legal_masks(self.actions.space, mask, len(logits), logits.device, strict=False)
