"""Multi-layer perceptron: the trunk of most policies.

In: (*, F). The graph flattens and joins whatever flows in (vectors, images, one-hot categories) to F features.
"""

from __future__ import annotations

from torch import nn

from policysmith.parts.activations import Activation
from policysmith.parts.norms import Norm
from policysmith.registry import part, register
from policysmith.types import Dropout, FlatFeatures, Width

__all__ = ["MLP"]


@register("mlp")
class MLP(nn.Sequential):
    """Linear → norm? → activation → dropout? for each width in `hidden`, then a Linear to `out_features` if given.

    (*, in_features) → (*, out_features or hidden[-1]). Every layer has an activation of its own.

    Args:
        hidden: The units of each hidden layer.
        activation: The nonlinearity behind each layer.
        norm: The normalisation before each nonlinearity; null for none.
        dropout: The share of hidden units that training sets to 0.
        out_features: The width of a last linear layer; null ends with the last hidden one.
    """

    def __init__(
        self,
        in_features: FlatFeatures,
        hidden: list[Width] = [64, 64],  # noqa: B006 - read only
        activation: Activation = "tanh",
        norm: Norm | None = None,
        dropout: Dropout = 0.0,
        out_features: Width | None = None,
    ) -> None:
        layers: list[nn.Module] = []
        width = in_features
        for size in hidden:
            layers.append(nn.Linear(width, size))
            if norm is not None:
                layers.append(part("norm", norm).build(features=size))
            layers.append(part("activation", activation).build())
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = size
        if out_features is not None:
            layers.append(nn.Linear(width, out_features))
        super().__init__(*layers)
