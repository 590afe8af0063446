"""Dense layers with shortcuts around them. In: (*, F), joined by the graph. Out: (*, width)."""

from __future__ import annotations

from torch import Tensor, nn

from policysmith.parts.activations import Activation
from policysmith.parts.norms import Norm
from policysmith.registry import PartSpec, part, register
from policysmith.types import Dropout, FlatFeatures, Repeats, Width

__all__ = ["ResidualMLP"]


@register("residual_mlp")
class ResidualMLP(nn.Module):
    """Linear → norm? → activation → dropout? to `width`, then x + the same of x for each layer after the first.

    (*, in_features) → (*, width).

    Args:
        width: The units of each layer.
        layers: How many layers there are.
        activation: The nonlinearity of each layer.
        norm: The normalisation of each layer; null for none.
        dropout: The share of units that training sets to 0.
    """

    def __init__(
        self,
        in_features: FlatFeatures,
        width: Width = 64,
        layers: Repeats = 2,
        activation: Activation = "tanh",
        norm: Norm | None = None,
        dropout: Dropout = 0.0,
    ) -> None:
        super().__init__()
        self.enter = _layer(in_features, width, activation, norm, dropout)
        self.layers = nn.ModuleList(_layer(width, width, activation, norm, dropout) for _ in range(layers - 1))

    def forward(self, x: Tensor) -> Tensor:
        """x (*, F) → (*, width)."""
        x = self.enter(x)
        for layer in self.layers:
            x = x + layer(x)
        return x


def _layer(
    features: int, width: int, activation: PartSpec | str, norm: PartSpec | str | None, dropout: float
) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Linear(features, width)]
    if norm is not None:
        modules.append(part("norm", norm).build(features=width))
    modules.append(part("activation", activation).build())
    return nn.Sequential(*modules, *([nn.Dropout(dropout)] if dropout else []))
