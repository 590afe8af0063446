"""The gate of the Gated Transformer-XL: a GRU cell between the stream and its branch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policysmith.ops.init import with_role
from policysmith.parts.activations import Activation
from policysmith.registry import part, register
from policysmith.types import Dim

__all__ = ["GRUGate"]


@register("gtrxl", slot="residual")
class GRUGate(nn.Module):
    """GTrXL's gate (arXiv 1910.06764, eq. 7): (1 - z) ⊙ x + z ⊙ ĥ, with reset and update gates of x and the branch y.

    The branch passes `activation` first, the paper's ReLU (section 3.1). A `bias` of 2 starts the block near identity.

    Args:
        bias: Where the gate's bias starts; 2 keeps a block near the identity at first.
        activation: The nonlinearity on the branch before it enters the gate.
    """

    def __init__(self, dim: Dim, bias: float = 2.0, activation: Activation = "relu") -> None:
        super().__init__()
        self.activation = part("activation", activation).build()
        self.branch_reset, self.stream_reset = _square(dim), _square(dim)
        self.branch_update, self.stream_update = _square(dim), _square(dim)
        self.branch_candidate, self.stream_candidate = _square(dim), _square(dim)
        self.update_bias = nn.Parameter(torch.full((dim,), float(bias)))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y (*, D) → (*, D)."""
        y = self.activation(y)
        reset = torch.sigmoid(self.branch_reset(y) + self.stream_reset(x))
        update = torch.sigmoid(self.branch_update(y) + self.stream_update(x) - self.update_bias)
        candidate = torch.tanh(self.branch_candidate(y) + self.stream_candidate(reset * x))
        return torch.addcmul(x, update, candidate - x)


def _square(dim: int) -> nn.Linear:
    return with_role(nn.Linear(dim, dim, bias=False), "recurrent")
