"""Initialisation by role: what a layer is for decides how it starts.

In: a module whose layers may carry a role. Out: the same module, initialised in place from torch's global generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["ROLES", "Initializer", "default_role", "initialize", "with_role"]

Initializer = Callable[[Tensor], object]
M = TypeVar("M", bound=nn.Module)


def _orthogonal(gain: float) -> Initializer:
    return lambda weight: _orthogonal_(weight, gain)


def _orthogonal_(weight: Tensor, gain: float) -> None:
    """`nn.init.orthogonal_` to rounding; a long matrix, which is well-conditioned, by the faster Cholesky QR."""
    rows, columns = len(weight), weight[0].numel()
    if max(rows, columns) < 2 * min(rows, columns):
        nn.init.orthogonal_(weight, gain)
        return
    drawn = weight.new_empty(rows, columns).normal_()
    long = drawn if rows > columns else drawn.T
    triangle = torch.linalg.cholesky(long.T @ long, upper=True)
    basis = torch.linalg.solve_triangular(triangle, long, upper=True, left=False)
    weight.copy_((basis if rows > columns else basis.T).reshape(weight.shape)).mul_(gain)


def _normal(std: float) -> Initializer:
    return lambda weight: nn.init.normal_(weight, std=std)


# Gains of the usual actor-critic recipe (Andrychowicz et al., arXiv 2006.05990, and the PPO implementations since).
ROLES: dict[str, Initializer] = {
    "hidden": _orthogonal(math.sqrt(2)),
    "policy_out": _orthogonal(0.01),
    "value_out": _orthogonal(1.0),
    "embedding": _normal(1.0),
    "router": _normal(0.02),
    "recurrent": _orthogonal(1.0),
    "position": _normal(0.02),
    "projection": _orthogonal(1.0),  # of transformer blocks, whose norms and residuals set the scale
}

_HIDDEN = (
    nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


def with_role(module: M, role: str) -> M:
    """Mark a layer with its role (a key of `ROLES`) and return it."""
    if role not in ROLES:
        raise ValueError(f"unknown role {role!r}; roles: {', '.join(ROLES)}")
    module.init_role = role  # type: ignore[assignment]
    return module


def default_role(module: nn.Module) -> str | None:
    """The role of a layer that carries no mark; None for layers that keep torch's own start (norms, plain parts)."""
    if isinstance(module, _HIDDEN):
        return "hidden"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return "recurrent"
    return None


def initialize(module: nn.Module, initializer: Initializer | None = None) -> None:
    """Initialise every layer by its role: weights by the role's rule (or `initializer`), biases zero.

    A layer with biases that start elsewhere sets them in its own `start_biases()`, called last. A module that says
    `keeps_start` has drawn its weights itself: it is left alone, unless there is an `initializer`.
    """
    for layer in module.modules() if initializer is not None else _unsettled(module):
        role = getattr(layer, "init_role", None) or default_role(layer)
        if role is not None:
            _initialize_layer(layer, initializer or ROLES[role])


def _unsettled(module: nn.Module) -> Iterator[nn.Module]:
    """The module and those below it, without what keeps its start; each once, as `modules()` gives them."""
    settled = {id(m) for top in module.modules() if getattr(top, "keeps_start", False) for m in top.modules()}
    return (layer for layer in module.modules() if id(layer) not in settled)


@torch.no_grad()
def _initialize_layer(layer: nn.Module, initializer: Initializer) -> None:
    for name, parameter in layer.named_parameters(recurse=False):
        if "bias" in name:
            parameter.zero_()
        elif parameter.dim() == 3 and isinstance(layer, nn.Bilinear):
            initializer(parameter.flatten(1))
        elif parameter.dim() >= 2:
            initializer(parameter)
    if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
        layer.weight[layer.padding_idx].zero_()
    if hasattr(layer, "start_biases"):
        layer.start_biases()  # type: ignore[operator]
