"""A policy head that scores every action by its vector, so that it has no weights of its own for any action.

A actions, H features, E numbers an action vector, K bilinear forms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from policysmith.registry import register
from policysmith.types import ActionLayout, EventShapes, Width

__all__ = ["BilinearActionHead"]


@register("bilinear_action_head", role="policy")
class BilinearActionHead(nn.Module):
    """Features (*, H) and action vectors (*, A, E) → logits (*, A): tanh(x W) · e + b.

    With `forms` there are K such scores an action, and ReLU and an MLP K → `hidden` → 1 make a logit of them. For
    spaces of discrete actions; of several variables the vectors are one variable's after another's. Raises ValueError
    for inputs of other shapes, or another number of vectors than the space has actions.

    Args:
        forms: How many bilinear forms are computed before the last layer; null scores each action by one form
            directly.
        hidden: The units between the forms and the score.
    """

    def __init__(
        self,
        event_shapes: EventShapes,
        layout: ActionLayout,
        forms: Width | None = None,
        hidden: Width = 512,
    ) -> None:
        super().__init__()
        features, actions, dim = _sizes(event_shapes)
        if any(free for _, free in layout):
            raise ValueError("it scores discrete actions, and a Box has none; action_head is for any space")
        if (wanted := sum(size for size, _ in layout)) != actions:
            raise ValueError(f"it reads {actions} action vectors, and the space has {wanted} actions")
        bound = 1 / math.sqrt(features)
        self.W = nn.Parameter(torch.empty(forms or 1, features, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(forms or 1).uniform_(-bound, bound))
        self.mlp = nn.Sequential(nn.Linear(forms, hidden), nn.ReLU(), nn.Linear(hidden, 1)) if forms else None

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        """x (*, H), vectors (*, A, E) → (*, A)."""
        query = torch.einsum("...h,khe->...ke", x, self.W).tanh()
        scores = torch.einsum("...ke,...ae->...ak", query, vectors) + self.bias
        return (scores if self.mlp is None else self.mlp(scores.relu())).squeeze(-1)


def _sizes(shapes: tuple[tuple[int, ...], ...]) -> tuple[int, int, int]:
    """H, A and E."""
    if [len(shape) for shape in shapes] != [1, 2]:
        found = ", ".join(map(str, shapes))
        raise ValueError(f"it takes features (H,) and action vectors (A, E), found shapes {found}")
    return shapes[0][0], *shapes[1]  # type: ignore[return-value]
