"""Soft routing: every expert sees mixtures of a sample's tokens, and every token takes a mixture of what they made.

In: tokens (B, T, D). Out: weights to mix tokens into slots, and slots into tokens, both (B, T, S).
B samples, T tokens, D features, S slots (of all experts together).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.ops.init import with_role
from policysmith.parts.feedforward.topk_router import linear_in_full_precision
from policysmith.registry import register
from policysmith.types import Count, Dim, NumExperts

__all__ = ["SoftRouter"]


@register("soft", slot="router", causal=False, scored=False)
class SoftRouter(nn.Module):
    """Soft MoE (arXiv 2308.00951, §2.1 and §2.3): `slots` mixtures of a sample's tokens for each expert.

    Tokens mix within their own sample only, so rows of a batch stay apart; but a token sees later ones: not causal.

    Args:
        slots: How many mixed tokens each expert processes.
    """

    def __init__(
        self,
        dim: Dim,
        experts: NumExperts,
        slots: Count = 1,
    ) -> None:
        super().__init__()
        self.slots = slots
        self.phi = with_role(nn.Linear(dim, experts * slots, bias=False), "router")
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens → dispatch weights (B, T, S), of sum 1 over T, and combine weights (B, T, S), of sum 1 over S."""
        dtype = torch.promote_types(x_BTD.dtype, torch.float32)
        directions = self.scale.to(dtype) * F.normalize(self.phi.weight.to(dtype), dim=-1)
        logits_BTS = linear_in_full_precision(F.normalize(x_BTD.to(dtype), dim=-1), directions)
        return logits_BTS.softmax(1), logits_BTS.softmax(2)
