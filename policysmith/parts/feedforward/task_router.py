"""Routing by task: which experts a row takes is known, not learned.

In: rows (N, D) and the task of each (N,). Out: a `Routing`.
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor, nn

from policysmith.ops.route import Routing, check_ids
from policysmith.registry import register
from policysmith.types import NonNegativeInt, NumExperts

__all__ = ["TaskRouter"]

TaskExperts = Annotated[list[NonNegativeInt], MinLen(1)]


@register("task", slot="router", causal=True, scored=False)
class TaskRouter(nn.Module):
    """The experts of task t, in equal shares: expert t, or those that `assignment[t]` lists (as many for each task).

    An id outside the tasks raises ValueError; on an accelerator it stops the device without waiting for it first.

    Args:
        assignment: The experts of each task; null gives task i the expert i.
    """

    table: Tensor

    def __init__(
        self,
        experts: NumExperts,
        assignment: Annotated[list[TaskExperts], MinLen(1)] | None = None,
    ) -> None:
        super().__init__()
        rows = [[index] for index in range(experts)] if assignment is None else assignment
        _check_assignment(rows, experts)
        self.register_buffer("table", torch.tensor(rows), persistent=False)

    def forward(self, x_ND: Tensor, task_N: Tensor | None = None) -> Routing:
        """Rows (N, D) and their task ids (N,), whole numbers → a routing without scores."""
        if task_N is None:
            raise ValueError("router 'task' needs the task of each row: pass task=ids to the forward")
        if task_N.is_floating_point() or task_N.dtype == torch.bool:
            raise ValueError(f"task ids are whole numbers, found {task_N.dtype}")
        check_ids(task_N, len(self.table), "task")
        experts_NK = self.table.index_select(0, task_N.long())
        share = 1 / experts_NK.shape[1]
        gates_NK = torch.full_like(experts_NK, share, dtype=torch.promote_types(x_ND.dtype, torch.float32))
        return Routing(experts_NK, gates_NK)


def _check_assignment(rows: list[list[int]], experts: int) -> None:
    sizes = sorted({len(row) for row in rows})
    if len(sizes) > 1:
        raise ValueError(f"assignment gives tasks {sizes[0]} to {sizes[-1]} experts; each task needs as many")
    for task, row in enumerate(rows):
        if wrong := [index for index in row if not 0 <= index < experts]:
            raise ValueError(f"assignment[{task}] names expert {wrong[0]}, but experts={experts}")
        if len(set(row)) < len(row):
            raise ValueError(f"assignment[{task}]={row} names an expert twice")
