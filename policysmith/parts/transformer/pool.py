"""A whole sequence as one vector. In: (B, T, D), and padding (B, T) where there is any. Out: (B, D)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from policysmith.ops.init import with_role
from policysmith.registry import register
from policysmith.types import Count, EventShapes

__all__ = ["Pooling", "SequencePool"]

Pooling = Literal["last", "mean", "attention"]


@register("sequence_pool")
class SequencePool(nn.Module):
    """The `last` step, the `mean` over steps, or by `attention`: a mean whose weights each head learns to give.

    (T, D) → (D,). `heads` share the features of attention pooling evenly (default 1). A second input, one number a
    step, is not 0 where there is no token; rows without any token give zeros.

    Args:
        kind: The last token, their mean, or their mean weighted by attention.
        heads: The heads of attention pooling; 1 by default.
    """

    def __init__(
        self,
        event_shapes: EventShapes,
        kind: Pooling = "last",
        heads: Count | None = None,
    ) -> None:
        super().__init__()
        if len(event_shapes[0]) != 2:
            raise ValueError(f"a sequence (T, features) is expected, found {tuple(event_shapes[0])}")
        if heads is not None and kind != "attention":
            raise ValueError(f"heads={heads} belongs to kind: attention, not to {kind}")
        features, heads = event_shapes[0][-1], heads or 1
        if features % heads:
            raise ValueError(f"{features} features are not a multiple of heads={heads}")
        self.kind = kind
        # Almost uniform at first, as a router.
        self.score = with_role(nn.Linear(features, heads, bias=False), "router") if kind == "attention" else None

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """x (B, T, D) → (B, D)."""
        kept_BT = None if padding is None else padding == 0
        if self.score is not None:
            return _weighted(x, self.score(x), kept_BT)
        if self.kind == "mean":
            return x.mean(1) if kept_BT is None else _mean(x, kept_BT)
        return x[:, -1] if kept_BT is None else _last(x, kept_BT)


def _weighted(x_BTD: Tensor, scores_BTH: Tensor, kept_BT: Tensor | None) -> Tensor:
    if kept_BT is not None:
        scores_BTH = scores_BTH.masked_fill(~kept_BT.unsqueeze(-1), torch.finfo(scores_BTH.dtype).min)
    weights_BTH = scores_BTH.softmax(1)
    if kept_BT is not None:
        weights_BTH = weights_BTH * kept_BT.unsqueeze(-1)
    heads = scores_BTH.shape[-1]
    return torch.einsum("bth,bthd->bhd", weights_BTH, x_BTD.unflatten(-1, (heads, -1))).flatten(1)


def _mean(x_BTD: Tensor, kept_BT: Tensor) -> Tensor:
    count_B1 = kept_BT.sum(1, keepdim=True).clamp_min(1)
    return torch.where(kept_BT.unsqueeze(-1), x_BTD, 0).sum(1) / count_B1


def _last(x_BTD: Tensor, kept_BT: Tensor) -> Tensor:
    steps_T = torch.arange(kept_BT.shape[1], device=kept_BT.device)
    last_B = torch.where(kept_BT, steps_T, -1).amax(1)
    x_BD = x_BTD.gather(1, last_B.clamp_min(0).view(-1, 1, 1).expand(-1, 1, x_BTD.shape[-1])).squeeze(1)
    return torch.where(last_B.unsqueeze(-1) >= 0, x_BD, 0)
