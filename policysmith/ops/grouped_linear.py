"""One linear layer per group of rows, in one call, and when that is worth it.

P rows sorted by group, I features in, O out, E groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MEASURED_FASTER", "GroupedLimits", "grouped_linear", "grouped_pays"]


class GroupedLimits(NamedTuple):
    """How far `F.grouped_mm` beats a loop: mean rows a group, and weights of a layer if they must be stacked first."""

    rows: int
    weights: int


# By device type and dtype; what isn't listed takes the loop (measure it with `python -m benchmarks moe_grouped`).
# CPU, fp32: 0.4 to 0.95 of the loop's time within these limits, up to 1.5 beyond; in bf16 no gain.
MEASURED_FASTER: dict[tuple[str, torch.dtype], GroupedLimits] = {("cpu", torch.float32): GroupedLimits(64, 2**15)}
ALIGNMENT = 16  # bytes: what grouped_mm asks of every stride


def grouped_pays(x_PD: Tensor, weights: Sequence[Tensor], groups: int, stacked: bool) -> bool:
    """Whether `grouped_linear` is the faster way through layers like these; False where it can't run.

    `weights`: of each layer in turn, those of one group (O, I), or, `stacked`, of all (E, O, I).
    """
    limits = MEASURED_FASTER.get((x_PD.device.type, x_PD.dtype))
    if limits is None or torch.is_autocast_enabled(x_PD.device.type) or len(x_PD) > limits.rows * groups:
        return False
    if any(w.dtype != x_PD.dtype or w.shape[-1] * w.element_size() % ALIGNMENT for w in weights):
        return False
    return stacked or all(w.numel() <= limits.weights for w in weights)


def grouped_linear(x_PI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, group_P: Tensor, ends_E: Tensor) -> Tensor:
    """Row p times the weight of its group, plus that group's bias: (P, I) → (P, O).

    `group_P` (int64) rises; `ends_E` (int32) is where each group's rows end, the last one P.
    """
    # grouped_mm takes no bias, and column-major weights.
    y_PO = F.grouped_mm(x_PI, weight_EOI.transpose(1, 2), offs=ends_E)
    return y_PO if bias_EO is None else y_PO + bias_EO.index_select(0, group_P)
