"""Networks chosen by a task id: each row goes through its task's own network, and the others are not touched.

In: rows x (B, D) and task ids (B,). Out: (B, O) from each bank of networks. B rows, D features, E experts.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from policysmith.ops.init import initialize, with_role
from policysmith.ops.route import check_ids, edges_of
from policysmith.parts.activations import Activation
from policysmith.registry import part

__all__ = ["ExpertNetwork", "run_experts"]


class ExpertNetwork(nn.Module):
    """`num_layers` linear layers with activations between: (*, in_features) → (*, out_features).

    Layers are named `layers_0`, `layers_2`, …; activations have the odd numbers. Without `in_features` the first layer
    takes its size from `size(in_features)`, which must come before the first call.
    """

    def __init__(
        self,
        in_features: int | None,
        out_features: int,
        layer_width: int,
        num_layers: int,
        activation: Activation,
        role: str,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers={num_layers}, but a network needs at least 1: the one that gives its output")
        width = in_features
        for index in range(num_layers - 1):
            self.add_module(f"layers_{2 * index}", _linear(width, layer_width))
            self.add_module(f"layers_{2 * index + 1}", part("activation", activation).build())
            width = layer_width
        self.add_module(f"layers_{2 * num_layers - 2}", with_role(_linear(width, out_features), role))

    def forward(self, x: Tensor) -> Tensor:
        """x (*, in_features) → (*, out_features)."""
        for layer in self._modules.values():
            x = layer(x)  # type: ignore[misc]
        return x

    def start(self) -> None:
        """Initialise every layer whose size is known: orthogonal, √2 inside, by role at the end, biases zero."""
        for layer in self.children():
            if not _waits(layer):
                initialize(layer)

    def size(self, in_features: int) -> None:
        """Give a first layer that waits for its size that size, and initialise it."""
        first = self.get_submodule("layers_0")
        if _waits(first):
            first.initialize_parameters(torch.empty(1, in_features, device="meta"))  # type: ignore[operator]
            initialize(first)


def run_experts(banks: Sequence[Sequence[nn.Module]], x_BD: Tensor, task_B: Tensor) -> list[Tensor]:
    """Rows through network `task` of each bank; the banks have as many networks. One (B, O) for each bank.

    Only networks that a row asks for compute and get gradients; a NaN in one reaches only its rows. Where control flow
    can't depend on data (compiling, exporting) all compute, masked to the same values; on meta tensors the first does.
    Raises ValueError for ids that are no whole numbers, or out of range.
    """
    if task_B.is_floating_point() or task_B.dtype == torch.bool:
        raise ValueError(f"task ids are whole numbers, found {task_B.dtype}")
    if tuple(task_B.shape) != tuple(x_BD.shape[:1]):
        raise ValueError(
            f"task ids of shape {tuple(task_B.shape)} for rows of shape {tuple(x_BD.shape)}: expected (B,)"
        )
    if torch.compiler.is_compiling():
        check_ids(task_B, len(banks[0]), "task")
        return [_dense(networks, x_BD, task_B) for networks in banks]
    if x_BD.is_meta or not len(x_BD):
        return [networks[0](x_BD) for networks in banks]
    if len(x_BD) == 1:
        check_ids(task_B, len(banks[0]), "task")
        index = int(task_B)
        return [networks[index](x_BD) for networks in banks]
    return _sorted(banks, x_BD, task_B.long())


def _sorted(banks: Sequence[Sequence[nn.Module]], x_BD: Tensor, task_B: Tensor) -> list[Tensor]:
    """Rows sorted by task, so that each network in use sees its own in one piece, and back in their order."""
    check_ids(task_B, len(banks[0]), "task")
    by_task_B, order_B = task_B.sort(stable=True)
    back_B = torch.empty_like(order_B).scatter_(0, order_B, torch.arange(len(order_B), device=order_B.device))
    edges = enumerate(itertools.pairwise(edges_of(by_task_B, len(banks[0]))))
    used = [(index, start, end) for index, (start, end) in edges if end > start]
    rows_BD = x_BD.index_select(0, order_B)
    pieces = [(index, rows_BD[start:end]) for index, start, end in used]
    return [torch.cat([bank[i](piece) for i, piece in pieces]).index_select(0, back_B) for bank in banks]


def _dense(networks: Sequence[nn.Module], x_BD: Tensor, task_B: Tensor) -> Tensor:
    """Every network on every row: fixed shapes. Rows that a network must not see are zero to it."""
    parts = []
    for index, network in enumerate(networks):
        hit_B1 = (task_B == index).unsqueeze(1)
        # Masked before and after: 0 · NaN is NaN, forwards and backwards.
        parts.append(torch.where(hit_B1, network(torch.where(hit_B1, x_BD, 0.0)), 0.0))
    return functools.reduce(torch.add, parts)


def _linear(in_features: int | None, out_features: int) -> nn.Linear:
    return nn.LazyLinear(out_features) if in_features is None else nn.Linear(in_features, out_features)


def _waits(layer: nn.Module) -> bool:
    return any(map(is_lazy, layer.parameters(recurse=False)))
