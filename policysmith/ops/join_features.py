"""Joining tensors into one feature vector per row.

Shapes: `*` any leading batch dimensions, then each input's own event shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["join_features"]


def join_features(tensors: Sequence[Tensor], event_ndims: Sequence[int]) -> Tensor:
    """Flatten each event and concatenate: tensors (*, *event_i) → (*, Σ features_i), all in the first's float type.

    `event_ndims[i]` is the number of trailing dimensions that belong to input i, so any batch shape passes.
    """
    flat = [
        t if n == 1 else t.unsqueeze(-1) if n == 0 else t.flatten(-n) for t, n in zip(tensors, event_ndims, strict=True)
    ]
    return flat[0] if len(flat) == 1 else torch.cat(flat, -1)
