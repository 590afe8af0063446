"""The transformer's plain feedforward: two linear layers around an activation.

In and out: (*, D).
"""

from __future__ import annotations

from torch import Tensor

from policysmith.parts.activations import Activation
from policysmith.parts.feedforward.two_layers import TwoLayers
from policysmith.registry import part, register
from policysmith.types import Dim, Dropout, Width

__all__ = ["FeedForward"]


@register("mlp", slot="feedforward", causal=True)
class FeedForward(TwoLayers):
    """down(dropout(activation(up(x)))) (arXiv 1706.03762, §3.3); `hidden` is 4 · dim unless given.

    Args:
        hidden: The units of the hidden layer; four times the width by default.
        activation: The nonlinearity.
        dropout: The share of hidden units that training sets to 0.
        bias: Whether the linear maps add a bias.
    """

    def __init__(
        self,
        dim: Dim,
        hidden: Width | None = None,
        activation: Activation = "gelu",
        dropout: Dropout = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__(dim, hidden or 4 * dim, 1, dropout, bias)
        self.activation = part("activation", activation).build()

    def between(self, h: Tensor) -> Tensor:
        """h (*, hidden) → the same shape."""
        return self.activation(h)
