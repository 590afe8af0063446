"""Rows to their experts and back: which experts a row takes, and three ways to compute only those.

In: rows x (N, D), chosen experts (N, K) and their gates (N, K). Out: y (N, D), y_n = Σ_k gates_nk · expert_nk(x_n).
N rows, D features, K choices a row, E experts, P = N·K choices in all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Experts",
    "Implementation",
    "Routing",
    "Score",
    "check_ids",
    "edges_of",
    "mix",
    "probabilities",
    "top_k_gates",
]

Implementation = Literal["auto", "dense", "gather", "sorted"]
Score = Literal["softmax", "sigmoid"]
FEW = (
    4  # choices up to which a call for each beats sorting them (CPU, fp32: a row takes 0.7 of the time, 4 rows as much)
)


class Routing(NamedTuple):
    """What a router decided for N rows; a router without scores of its own leaves `logits_NE` and `score` out."""

    experts_NK: Tensor  # int64
    gates_NK: Tensor  # at least fp32
    logits_NE: Tensor | None = None  # at least fp32
    score: Score = "softmax"


class Experts(Protocol):
    """A number of functions (M, D) → (M, D)."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def one(self, index: int, x_MD: Tensor) -> Tensor:
        """What expert `index` makes of its rows."""
        ...

    def in_order(self, x_PD: Tensor, expert_P: Tensor) -> Tensor:
        """Each row through its expert; rows come sorted by expert."""
        ...


def top_k_gates(
    logits_NE: Tensor, k: int, score: Score = "softmax", bias_E: Tensor | None = None, normalize: bool = True
) -> tuple[Tensor, Tensor]:
    """The k best experts of each row and their gates: (N, E) → int64 (N, k), (N, k).

    Scores are the softmax over experts or each logit's sigmoid. `bias_E` shifts the choice and leaves the gates alone
    (DeepSeek-V3, arXiv 2412.19437, eq. 16). `normalize` divides the gates by their sum.
    """
    if bias_E is None:
        chosen, experts = logits_NE.topk(k)  # scores rise with the logits
    else:
        scores = logits_NE.softmax(-1) if score == "softmax" else logits_NE.sigmoid()
        experts = (scores + bias_E).topk(k).indices
        chosen = logits_NE.gather(-1, experts)
    # In logarithms: the ratios stay right where the scores themselves underflow.
    if normalize:
        return experts, (chosen if score == "softmax" else F.logsigmoid(chosen)).softmax(-1)
    if score == "sigmoid":
        return experts, chosen.sigmoid()
    return experts, (chosen - logits_NE.logsumexp(-1, keepdim=True)).exp()


def probabilities(logits_NE: Tensor, score: Score) -> Tensor:
    """Scores as shares of their sum over all experts: (N, E) → (N, E)."""
    return (logits_NE if score == "softmax" else F.logsigmoid(logits_NE)).softmax(-1)


def mix(x_ND: Tensor, routing: Routing, experts: Experts, implementation: Implementation = "auto") -> Tensor:
    """Rows through their experts, weighted by the gates: (N, D) → (N, D).

    All implementations agree; an expert's NaN reaches only rows that chose it, and in `gather` and `sorted` an expert
    that no row chose gets no gradient. Where control flow can't depend on data (compiling, exporting) `dense` runs,
    whatever was asked for; meta tensors take the work of any choice. An expert id out of range raises ValueError.
    """
    ids, gates = routing.experts_NK, routing.gates_NK
    if implementation == "dense" or torch.compiler.is_compiling():
        check_ids(ids, len(experts), "expert")
        return mix_dense(x_ND, ids, gates, experts)
    if x_ND.is_meta:
        return mix_unseen(x_ND, gates, experts)
    if not len(x_ND):
        return x_ND
    if implementation == "gather" or (implementation == "auto" and ids.numel() <= FEW):
        return mix_gathered(x_ND, ids, gates, experts)
    return mix_sorted(x_ND, ids, gates, experts.in_order)


def mix_dense(x_ND: Tensor, ids_NK: Tensor, gates_NK: Tensor, experts: Experts) -> Tensor:
    """Every expert on every row: fixed shapes, E/K times the work. Rows that an expert must not see are zero to it."""
    parts = []
    for index in range(len(experts)):
        hit_NK = ids_NK == index
        hit_N1 = hit_NK.any(-1, keepdim=True)
        gate_N1 = torch.where(hit_NK, gates_NK, 0.0).sum(-1, keepdim=True)
        # Masked before and after: 0 · NaN is NaN, forwards and backwards.
        y_ND = experts.one(index, torch.where(hit_N1, x_ND, 0.0))
        parts.append(torch.where(hit_N1, y_ND * gate_N1.to(y_ND.dtype), 0.0))
    return functools.reduce(torch.add, parts)


def mix_unseen(x_ND: Tensor, gates_NK: Tensor, experts: Experts) -> Tensor:
    """For meta tensors, which hold no choice: the first K experts on every row cost what any K of them do."""
    parts = [experts.one(k, x_ND) * gates_NK[:, k : k + 1].to(x_ND.dtype) for k in range(gates_NK.shape[1])]
    return functools.reduce(torch.add, parts)


def mix_gathered(x_ND: Tensor, ids_NK: Tensor, gates_NK: Tensor, experts: Experts) -> Tensor:
    """Row by row, a call for each choice: the least to do for a few rows."""
    num_experts, rows = len(experts), []
    for row, chosen in enumerate(ids_NK.tolist()):
        if not 0 <= min(chosen) <= max(chosen) < num_experts:
            raise _out_of_range("expert", next(c for c in chosen if not 0 <= c < num_experts), num_experts)
        x_1D = x_ND[row : row + 1]
        y_KD = torch.cat([experts.one(index, x_1D) for index in chosen])
        rows.append(gates_NK[row : row + 1].to(y_KD.dtype) @ y_KD)
    return torch.cat(rows) if len(rows) > 1 else rows[0]


def mix_sorted(x_ND: Tensor, ids_NK: Tensor, gates_NK: Tensor, in_order: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Choices sorted by expert, so that each expert in use sees its rows in one piece."""
    expert_P, order_P = ids_NK.flatten().sort(stable=True)
    row_P = order_P // ids_NK.shape[1]
    y_PD = in_order(x_ND.index_select(0, row_P), expert_P)
    gate_P = gates_NK.flatten().index_select(0, order_P).to(y_PD.dtype)
    return torch.zeros_like(x_ND, dtype=y_PD.dtype).index_add(0, row_P, y_PD * gate_P.unsqueeze(1))


def edges_of(expert_P: Tensor, num_experts: int) -> list[int]:
    """Where each expert's rows begin among rows sorted by expert: E + 1 positions on the host.

    Raises ValueError for an id that names no expert.
    """
    edges: list[int] = torch.searchsorted(expert_P, torch.arange(num_experts + 1, device=expert_P.device)).tolist()
    if edges[0] or edges[-1] != len(expert_P):
        raise _out_of_range("expert", int(expert_P[0 if edges[0] else -1]), num_experts)
    return edges


def check_ids(ids: Tensor, count: int, what: str) -> None:
    """Raise ValueError naming the first id outside 0 … count-1.

    On an accelerator, and in compiled code, the check is part of the stream: it waits for nothing and stops the device.
    """
    if ids.is_meta or not ids.numel():
        return
    inside = (ids >= 0) & (ids < count)
    if ids.device.type != "cpu" or torch.compiler.is_compiling():
        torch._assert_async(inside.all(), f"an id of {what} is out of range: there are {count}")
    elif not bool(inside.all()):
        raise _out_of_range(what, int(ids[~inside][0]), count)


def _out_of_range(what: str, found: int, count: int) -> ValueError:
    return ValueError(f"{what} id {found} is out of range: there are {count}, 0 to {count - 1}")
