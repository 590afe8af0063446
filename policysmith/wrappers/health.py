"""The health of weight matrices: dead units, norms, spectra. O output units, I inputs of each.

In: modules with weights of any shape. Out: matrices (O, I), a row for each unit, and figures about them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from policysmith.graph.module_view import bare

__all__ = ["Health", "effective_rank", "weight_matrices"]

DEAD_BELOW = 1e-6
NORM_LIMIT = 100.0
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Health(NamedTuple):
    """Of one weight matrix: units whose weights are all zero, its Frobenius norm, its largest absolute entry."""

    dead_units: float
    norm: float
    largest: float

    @staticmethod
    def figures(weight_OI: Tensor) -> Tensor:
        """The three as one tensor (3,), so that many need one transfer."""
        largest_O = weight_OI.detach().abs().amax(1)
        norm = torch.linalg.vector_norm(weight_OI.detach())
        dead = (largest_O < DEAD_BELOW).sum()
        return torch.stack([dead.float(), norm.float(), largest_O.amax().float()])

    @property
    def complaint(self) -> str:
        """What is wrong, in words; empty where nothing is."""
        found = []
        if self.norm != self.norm or self.norm == float("inf"):
            found.append("NaN or Inf among its weights")
        elif self.norm > NORM_LIMIT:
            found.append(f"large norm {self.norm:.4g}")
        if self.dead_units:
            found.append(f"{self.dead_units:.0f} dead units")
        return ", ".join(found)


def weight_matrices(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter of two or more dimensions with its name, as a matrix (O, I) of its output units."""
    seen: set[int] = set()
    for prefix, child in module.named_modules():
        for name, parameter in child._parameters.items():
            if parameter is not None and parameter.dim() >= 2 and parameter.numel() and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{prefix}.{name}".lstrip("."), _units(bare(child), name, parameter)


def effective_rank(singular_values: Tensor) -> Tensor:
    """exp of the entropy of the normalised singular values (Roy & Vetterli 2007), 1 to their number; 0 for zeros."""
    share = singular_values / singular_values.sum().clamp_min(torch.finfo(singular_values.dtype).tiny)
    rank = torch.special.entr(share).sum().exp()
    return torch.where(singular_values.sum() > 0, rank, torch.zeros_like(rank))


def _units(module: nn.Module, name: str, weight: Tensor) -> Tensor:
    """One row a unit: the first dimension of a weight, but the second (of each group) of a transposed convolution."""
    if name == "weight" and isinstance(module, _TRANSPOSED):
        weight = weight.unflatten(0, (module.groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)
