"""A learned vector for every action, for heads that compare a state with what can be done in it.

A actions, N rows of the table, E numbers a vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import EventShape, NonNegativeInt, NumActions, Width

__all__ = ["ActionEmbedding"]


@register("action_embedding", indices=True)
class ActionEmbedding(nn.Module):
    """The vectors of all actions of a Discrete space, the same for each row of its input: (*, *event) → (*, A, E).

    The table may hold more actions than the space has: `rows` names the table's row of each action (by default
    0 … A - 1), so that a policy moves to another set of actions with the vectors of those it knows. Of its input,
    best the observation as it is, only the number of rows matters. Raises ValueError for a row outside the table,
    and where `rows` are not A.

    Args:
        num_embeddings: How many rows the table has; no action is numbered beyond it.
        dim: The width of an action's vector.
        rows: The row of each action, where they are not numbered from 0.
    """

    rows: Tensor

    def __init__(
        self,
        event_shape: EventShape,
        num_embeddings: Width = 100,
        dim: Width = 16,
        rows: list[NonNegativeInt] | None = None,
        num_actions: NumActions = 0,
    ) -> None:
        super().__init__()
        if not num_actions:
            raise ValueError("it embeds the actions of a Discrete space, and this is another one")
        rows = list(range(num_actions)) if rows is None else rows
        if len(rows) != num_actions:
            raise ValueError(f"rows has {len(rows)} entries for {num_actions} actions")
        if max(rows) >= num_embeddings:
            raise ValueError(f"row {max(rows)} of a table of {num_embeddings}")
        self.event_ndim = len(event_shape)
        self.table = nn.Embedding(num_embeddings, dim)
        self.register_buffer("rows", torch.tensor(rows), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, *event) → (*, A, E), a view of one (A, E)."""
        vectors_AE = self.table(self.rows)
        leading = x.shape[: -self.event_ndim] if self.event_ndim else x.shape
        return vectors_AE.expand(leading + vectors_AE.shape)
