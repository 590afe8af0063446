"""The experts of a mixture: one module each, or, frozen, the weights of all in one tensor per layer.

Both are `policysmith.ops.route.Experts`. P rows sorted by expert, M rows of one expert, D features, E experts.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.ops.grouped_linear import grouped_linear, grouped_pays
from policysmith.ops.route import edges_of
from policysmith.parts.feedforward.two_layers import TwoLayers

__all__ = ["ExpertList", "FrozenExperts"]


class ExpertList(nn.ModuleList):
    """Experts with parameters of their own, so that an optimiser skips those that no row chose."""

    def one(self, index: int, x_MD: Tensor) -> Tensor:
        """(M, D) → (M, D) by expert `index`."""
        return self[index](x_MD)

    def in_order(self, x_PD: Tensor, expert_P: Tensor) -> Tensor:
        """Rows sorted by expert, each through its own: a loop over the experts in use, or one grouped product."""
        counts = _counts(expert_P, len(self))
        used = [index for index, count in enumerate(counts) if count]
        plain = _plain([self[index] for index in used])
        if plain is not None and grouped_pays(x_PD, _weights(plain[0]), len(used), stacked=False):
            # Only the experts in use are stacked: the others get no gradient.
            group_P = torch.searchsorted(torch.tensor(used, device=x_PD.device), expert_P)
            return _apply_stacked(_stack(plain), plain[0], x_PD, group_P)
        pieces = x_PD.split(counts)
        return torch.cat([self[index](pieces[index]) for index in used])


class FrozenExperts(nn.Module):
    """A stacked copy of experts for inference: same values, no parameters, no training."""

    up_weight: Tensor
    up_bias: Tensor | None
    down_weight: Tensor
    down_bias: Tensor | None

    def __init__(self, experts: Sequence[nn.Module]) -> None:
        super().__init__()
        plain = _plain(experts)
        if plain is None:
            kinds = ", ".join(sorted({type(expert).__name__ for expert in experts}))
            raise ValueError(
                f"frozen() stacks feedforwards of plain linear layers; these experts ({kinds}) have other weights or "
                "hooks: use the mixture as it is"
            )
        with torch.no_grad():
            stacks = _stack(plain)
        for name, tensor in zip(("up_weight", "up_bias", "down_weight", "down_bias"), stacks, strict=True):
            self.register_buffer(name, tensor)
        self.pattern = copy.deepcopy(plain[0])  # for what lies between the layers, and without their weights
        self.pattern.up, self.pattern.down = nn.Identity(), nn.Identity()
        self.eval()

    def __len__(self) -> int:
        return len(self.up_weight)

    def train(self, mode: bool = True) -> FrozenExperts:
        """Refuses training."""
        if mode:
            raise RuntimeError("frozen experts are for inference; train the mixture they were made from")
        return super().train(False)

    def one(self, index: int, x_MD: Tensor) -> Tensor:
        """(M, D) → (M, D) by expert `index`."""
        up_bias, down_bias = (None if b is None else b.select(0, index) for b in (self.up_bias, self.down_bias))
        h = self.pattern.inner(F.linear(x_MD, self.up_weight.select(0, index), up_bias))
        return F.linear(h, self.down_weight.select(0, index), down_bias)

    def in_order(self, x_PD: Tensor, expert_P: Tensor) -> Tensor:
        """Rows sorted by expert, each through its own."""
        if grouped_pays(x_PD, (self.up_weight, self.down_weight), len(self), stacked=True):
            stacks = (self.up_weight, self.up_bias, self.down_weight, self.down_bias)
            return _apply_stacked(stacks, self.pattern, x_PD, expert_P)
        pieces = x_PD.split(_counts(expert_P, len(self)))
        return torch.cat([self.one(index, piece) for index, piece in enumerate(pieces) if len(piece)])


Stacks = tuple[Tensor, Tensor | None, Tensor, Tensor | None]


def _counts(expert_P: Tensor, num_experts: int) -> list[int]:
    """How many rows each expert has, on the host."""
    return [end - start for start, end in itertools.pairwise(edges_of(expert_P, num_experts))]


def _plain(experts: Sequence[nn.Module]) -> list[TwoLayers] | None:
    """The experts, if they differ in the weights of two linear layers only, and calling those is all they do."""
    for expert in experts:
        if not isinstance(expert, TwoLayers) or type(expert).forward is not TwoLayers.forward:
            return None
        if any(type(layer) is not nn.Linear for layer in (expert.up, expert.down)):
            return None  # swapped, parametrised or quantised
        if expert.activation._parameters or expert.activation._modules:
            return None
        if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in (expert, expert.up, expert.down)):
            return None
    return cast(list[TwoLayers], experts)


def _weights(expert: TwoLayers) -> tuple[Tensor, Tensor]:
    return cast(Tensor, expert.up.weight), cast(Tensor, expert.down.weight)


def _stack(experts: Sequence[TwoLayers]) -> Stacks:
    """Weights (E, O, I) and biases (E, O) of both layers; differentiable."""
    return *_stack_layers([e.up for e in experts]), *_stack_layers([e.down for e in experts])


def _stack_layers(layers: Sequence[nn.Module]) -> tuple[Tensor, Tensor | None]:
    weights, biases = ([getattr(layer, name) for layer in layers] for name in ("weight", "bias"))
    return torch.stack(weights), None if biases[0] is None else torch.stack(biases)


def _apply_stacked(stacks: Stacks, pattern: TwoLayers, x_PD: Tensor, group_P: Tensor) -> Tensor:
    """Rows sorted by group through stacked layers; `pattern` knows what lies between."""
    up_weight, up_bias, down_weight, down_bias = stacks
    groups = torch.arange(len(up_weight), device=x_PD.device)
    ends = torch.searchsorted(group_P, groups, right=True, out_int32=True)
    h = pattern.inner(grouped_linear(x_PD, up_weight, up_bias, group_P, ends))
    return grouped_linear(h, down_weight, down_bias, group_P, ends)
