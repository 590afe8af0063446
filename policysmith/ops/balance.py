"""How evenly rows spread over experts: losses that even them out, and statistics that show it.

N rows, E experts, K choices a row. Losses are scalars with gradient, statistics have none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["add_loss", "add_statistics", "balance_loss", "expert_load", "z_loss"]


def expert_load(ids_NK: Tensor, num_experts: int) -> Tensor:
    """The share of all choices that fell on each expert: int64 (N, K) → fp32 (E,), of sum 1 (0 without rows)."""
    ids_P = ids_NK.flatten()
    counts_E = ids_P.new_zeros(num_experts).scatter_add(0, ids_P, torch.ones_like(ids_P))
    return counts_E.float() / max(ids_P.shape[0], 1)


def balance_loss(probs_NE: Tensor, load_E: Tensor) -> Tensor:
    """Load-balancing loss of Switch Transformers (arXiv 2101.03961, eq. 4–6): E · Σ_e f_e · P_e.

    f_e is the share of the N·K choices that fell on e (eq. 5 divided by K, so that Σ f = 1), P_e the mean probability
    of e over rows (eq. 6). Even routing gives 1; all rows on the same K experts give E/K. Only P has a gradient.
    """
    num_rows, num_experts = probs_NE.shape
    return num_experts * (load_E.detach() * probs_NE.sum(0)).sum() / max(num_rows, 1)


def z_loss(logits_NE: Tensor) -> Tensor:
    """Router z-loss of ST-MoE (arXiv 2202.08906, eq. 5): the mean over rows of (log Σ_e exp logit_e)²."""
    return logits_NE.logsumexp(-1).square().sum() / max(logits_NE.shape[0], 1)


def add_loss(aux: dict[str, Tensor], name: str, value: Tensor) -> None:
    """Add a loss to the sink: those of several layers sum."""
    aux[name] = aux[name] + value if name in aux else value


@torch.no_grad()
def add_statistics(aux: dict[str, Tensor], load_E: Tensor, probs_NE: Tensor | None = None) -> None:
    """Add one layer's statistics to the sink, under `moe/`.

    `moe/load` (L, E) has a row for each layer in the order of the calls, NaN past the experts of a smaller layer.
    Means over the layers are `moe/dead`, the share of experts that no row chose, and `moe/entropy`, the mean entropy
    of a row's routing probabilities in nats (0 where nothing is scored: the choice is certain).
    """
    load_1E = load_E.unsqueeze(0)
    aux["moe/load"] = _stack_ragged(aux["moe/load"], load_1E) if "moe/load" in aux else load_1E
    layers = aux["moe/load"].shape[0]
    _add_mean(aux, "moe/dead", (load_E == 0).float().mean(), layers)
    entropy = load_E.new_zeros(())
    if probs_NE is not None:
        entropy = torch.special.entr(probs_NE).sum().float() / max(probs_NE.shape[0], 1)
    _add_mean(aux, "moe/entropy", entropy, layers)


def _stack_ragged(above_LE: Tensor, below_LE: Tensor) -> Tensor:
    width = max(above_LE.shape[1], below_LE.shape[1])
    rows = [F.pad(rows, (0, width - rows.shape[1]), value=torch.nan) for rows in (above_LE, below_LE)]
    return torch.cat(rows)


def _add_mean(aux: dict[str, Tensor], name: str, value: Tensor, count: int) -> None:
    before = aux.get(name)
    aux[name] = value if before is None else before + (value - before) / count
