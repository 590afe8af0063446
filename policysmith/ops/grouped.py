"""One linear layer per group of rows, in one call, and when that is worth it.

P rows sorted by group, I features in, O out, E groups.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MEASURED_FASTER", "grouped_linear", "grouped_pays"]

# (device type, dtype) → up to how many rows, and weights of one layer of one group, `F.grouped_mm` beat a loop.
# Measured by `python -m benchmarks moe_grouped`; what isn't listed takes the loop.
MEASURED_FASTER: dict[tuple[str, torch.dtype], tuple[int, int]] = {("cpu", torch.float32): (512, 2**16)}
ALIGNMENT = 16  # bytes: what grouped_mm asks of every stride


def grouped_pays(x_PD: Tensor, weight_OI: Tensor) -> bool:
    """Whether `grouped_linear` is the faster way for these rows and weights like this; False where it can't run."""
    limits = MEASURED_FASTER.get((x_PD.device.type, x_PD.dtype))
    if limits is None or weight_OI.dtype != x_PD.dtype or torch.is_autocast_enabled(x_PD.device.type):
        return False
    aligned = all(size * x_PD.element_size() % ALIGNMENT == 0 for size in weight_OI.shape)
    return aligned and len(x_PD) <= limits[0] and weight_OI.numel() <= limits[1]


def grouped_linear(x_PI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, group_P: Tensor, ends_E: Tensor) -> Tensor:
    """Row p times the weight of its group, plus that group's bias: (P, I) → (P, O).

    `group_P` (int64) rises; `ends_E` (int32) is where each group's rows end, the last one P.
    """
    # grouped_mm takes no bias, and column-major weights.
    y_PO = F.grouped_mm(x_PI, weight_EOI.transpose(1, 2), offs=ends_E)
    return y_PO if bias_EO is None else y_PO + bias_EO.index_select(0, group_P)
