"""The learned router: each row takes the k experts that score best.

In: rows (N, D). Out: a `Routing`.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.ops.init import with_role
from policysmith.ops.route import Routing, Score, top_k_gates
from policysmith.registry import Infer, register
from policysmith.types import Dim, Dropout, NonNegative, NumExperts

__all__ = ["TopKRouter", "linear_in_full_precision"]


@register("topk", slot="router", causal=True)
class TopKRouter(nn.Module):
    """Top-k routing (arXiv 1701.06538); scores are computed in fp32 or better, whatever autocast says.

    `score`: softmax over the experts, or each expert's sigmoid (DeepSeek-V3, arXiv 2412.19437, §2.1.2).
    `normalize`: gates sum to 1 over the chosen experts. Default: if more than one is chosen; a single gate keeps its
        score (as in Switch), since one that is always 1 would teach the router nothing.
    `jitter`: in training the router's input is multiplied by noise uniform in 1 ± jitter (Switch, §2.2).
    `bias_speed`: above 0, the choice (not the gates) is shifted by a bias that evens out the load without a loss
        (DeepSeek-V3, eq. 16). It changes only in `update_bias`, by this much a call.

    Args:
        score: How logits become scores.
        normalize: Whether the chosen experts' weights are made to sum to 1; null takes what suits the score.
        jitter: How far training multiplies the inputs at random: by 1 ± jitter.
        bias_speed: How fast a bias on the choice evens out the load; 0 has none.
    """

    bias_steps: Tensor | None

    def __init__(
        self,
        dim: Dim,
        experts: NumExperts,
        top_k: Annotated[int, Infer("top_k")],
        score: Score = "softmax",
        normalize: bool | None = None,
        jitter: Dropout = 0.0,
        bias_speed: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        self.top_k, self.score, self.jitter, self.bias_speed = top_k, score, jitter, bias_speed
        self.normalize = top_k > 1 if normalize is None else normalize
        self.gate = with_role(nn.Linear(dim, experts, bias=False), "router")
        # The bias is a whole number of steps: integers keep it exact when the module is cast to half precision.
        self.register_buffer("bias_steps", torch.zeros(experts, dtype=torch.int64) if bias_speed else None)

    def forward(self, x_ND: Tensor, task_N: Tensor | None = None) -> Routing:
        """Rows (N, D) → their experts, gates and logits; `task_N` plays no part."""
        if self.training and self.jitter:
            x_ND = x_ND * torch.empty_like(x_ND).uniform_(1 - self.jitter, 1 + self.jitter)
        logits = linear_in_full_precision(x_ND, self.gate.weight)
        bias = None if self.bias_steps is None else self.bias_steps * self.bias_speed
        experts, gates = top_k_gates(logits, self.top_k, self.score, bias, self.normalize)
        return Routing(experts, gates, logits, self.score)

    @torch.no_grad()
    def update_bias(self, load_E: Tensor) -> None:
        """One step of `bias_speed` against the load: up for experts below the mean, down for those above.

        `load_E` (E,): shares or counts of choices since the last step, a row of `moe/load`.
        """
        if self.bias_steps is None:
            raise ValueError("this router has no selection bias: build it with bias_speed above 0 (DeepSeek-V3: 0.001)")
        if load_E.shape != self.bias_steps.shape:
            found, expected = tuple(load_E.shape), tuple(self.bias_steps.shape)
            raise ValueError(f"load has shape {found}, but the router has experts {expected}")
        load_E = load_E.to(self.bias_steps.device, torch.float32)
        self.bias_steps += torch.sign(load_E.mean() - load_E).to(torch.int64)


def linear_in_full_precision(x: Tensor, weight: Tensor) -> Tensor:
    """x (*, I), weight (O, I) → (*, O) in fp32, or fp64 where x is; autocast does not reach it."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, weight = x.to(dtype), weight.to(dtype)
    kind = x.device.type
    if not x.is_meta and torch.is_autocast_enabled(kind):
        with torch.autocast(kind, enabled=False):
            return F.linear(x, weight)
    return F.linear(x, weight)
