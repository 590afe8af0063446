"""Feedforwards with a gated linear unit: one half of the hidden features opens and closes the other.

In and out: (*, D).
"""

from __future__ import annotations

from torch import Tensor

from policysmith.parts.activations import Activation
from policysmith.parts.feedforward.two_layers import TwoLayers
from policysmith.registry import part, register
from policysmith.types import Dim, Dropout, Width

__all__ = ["GatedFeedForward"]


def gated_width(dim: int) -> int:
    """8/3 · dim, rounded up to a multiple of 8: as many weights as a plain feedforward with 4 · dim hidden features."""
    return 8 * -(-dim // 3)


class GatedFeedForward(TwoLayers):
    """down(dropout(activation(W x) · V x)) (GLU variants, arXiv 2002.05202, eq. 6).

    W and V lie in one layer `up`, W first. As in the paper there is no bias unless asked for.
    """

    def __init__(
        self,
        dim: Dim,
        hidden: Width | None = None,
        activation: Activation = "silu",
        dropout: Dropout = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__(dim, hidden or gated_width(dim), 2, dropout, bias)
        self.activation = part("activation", activation).build()

    def between(self, h: Tensor) -> Tensor:
        """h (*, 2 · hidden) → (*, hidden)."""
        gate, value = h.chunk(2, -1)
        return self.activation(gate) * value


@register("swiglu", slot="feedforward", causal=True)
def swiglu(dim: Dim, hidden: Width | None = None, dropout: Dropout = 0.0, bias: bool = False) -> GatedFeedForward:
    """Feedforward gated by SiLU (arXiv 2002.05202); `hidden` is 8/3 · dim, rounded up to a multiple of 8.

    Args:
        hidden: The units of the hidden layer; about 8/3 of the width by default, so that it has as many weights as an
            ungated one.
        dropout: The share of hidden units that training sets to 0.
        bias: Whether the linear maps add a bias.
    """
    return GatedFeedForward(dim, hidden, "silu", dropout, bias)


@register("geglu", slot="feedforward", causal=True)
def geglu(dim: Dim, hidden: Width | None = None, dropout: Dropout = 0.0, bias: bool = False) -> GatedFeedForward:
    """Feedforward gated by GELU (arXiv 2002.05202); `hidden` is 8/3 · dim, rounded up to a multiple of 8.

    Args:
        hidden: The units of the hidden layer; about 8/3 of the width by default, so that it has as many weights as an
            ungated one.
        dropout: The share of hidden units that training sets to 0.
        bias: Whether the linear maps add a bias.
    """
    return GatedFeedForward(dim, hidden, "gelu", dropout, bias)


@register("reglu", slot="feedforward", causal=True)
def reglu(dim: Dim, hidden: Width | None = None, dropout: Dropout = 0.0, bias: bool = False) -> GatedFeedForward:
    """Feedforward gated by ReLU (arXiv 2002.05202); `hidden` is 8/3 · dim, rounded up to a multiple of 8.

    Args:
        hidden: The units of the hidden layer; about 8/3 of the width by default, so that it has as many weights as an
            ungated one.
        dropout: The share of hidden units that training sets to 0.
        bias: Whether the linear maps add a bias.
    """
    return GatedFeedForward(dim, hidden, "relu", dropout, bias)
