"""The activation slot: element-wise functions as modules, by their usual names."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from policysmith.registry import PartSpec, Slot, register
from policysmith.types import Positive

__all__ = ["Activation", "ReLU2"]

Activation = Annotated[PartSpec | str, Slot("activation")]

_PLAIN: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "identity": nn.Identity,
    "hardswish": nn.Hardswish,
    "selu": nn.SELU,
}

for _name, _module in _PLAIN.items():
    register(_name, slot="activation", exclude=("inplace", "args", "kwargs", "beta", "threshold"))(_module)


@register("gelu", slot="activation")
def gelu(approximate: bool = False) -> nn.Module:
    """Gaussian error linear unit (arXiv 1606.08415); `approximate` uses the tanh form.

    Args:
        approximate: Whether tanh stands for the error function.
    """
    return nn.GELU("tanh" if approximate else "none")


@register("elu", slot="activation")
def elu(alpha: Positive = 1.0) -> nn.Module:
    """Exponential linear unit (arXiv 1511.07289).

    Args:
        alpha: What it tends to for large negative inputs, with the sign turned.
    """
    return nn.ELU(alpha)


@register("leaky_relu", slot="activation")
def leaky_relu(slope: Positive = 0.01) -> nn.Module:
    """ReLU with a small negative slope.

    Args:
        slope: The slope below 0.
    """
    return nn.LeakyReLU(slope)


@register("relu2", slot="activation")
class ReLU2(nn.Module):
    """Squared ReLU (Primer, arXiv 2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        """x (*) → relu(x)² (*)."""
        return x.relu().square()
