"""Uniformly random legal actions, of any space that policies have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from policysmith.policy.actions import ActionDistribution

__all__ = ["random_actions"]


def random_actions(actions: ActionDistribution, masks: Sequence[Tensor], rows: int) -> list[Tensor]:
    """Leaves (rows, …): choices uniform over what is legal, numbers uniform between their bounds.

    Where a bound has no end, a number is normally distributed about the bound that has one, or about 0.
    """
    legal = dict(zip(actions.discrete, masks, strict=True)) if masks else {}
    found = []
    for index, leaf in enumerate(actions.leaves):
        if leaf.mask_width:
            even = torch.zeros(rows, leaf.parameters_wanted)
            found.append(leaf.choose(even, legal.get(index), False)[0].cpu())
        else:
            found.append(_numbers(leaf.space, rows))
    return found


def _numbers(space: object, rows: int) -> Tensor:
    low, high = (torch.as_tensor(getattr(space, name)).float() for name in ("low", "high"))
    bounded = torch.isfinite(low) & torch.isfinite(high)
    uniform = low.nan_to_num(posinf=0, neginf=0) + torch.rand(rows, *low.shape) * (high - low).nan_to_num(posinf=0)
    free = torch.randn(rows, *low.shape)
    about = torch.where(torch.isfinite(low), low, torch.where(torch.isfinite(high), high, 0.0))
    return torch.where(bounded, uniform, (about + free).clamp(low, high))
