"""Growing and shrinking modules: what two of them have in common is carried over.

In: a freshly made module and the one it follows. Out: the new one, in place.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["keep_overlap"]


@torch.no_grad()
def keep_overlap(new: nn.Module, old: nn.Module) -> None:
    """Copy the overlapping part of every parameter and buffer of the same name and number of dimensions.

    Weights from new inputs to old outputs become zero, so that a wider layer starts with the outputs it had
    (Net2Net, arXiv 1511.05641, in spirit: new units begin unheard).
    """
    before = {**dict(old.named_parameters()), **dict(old.named_buffers())}
    for name, tensor in [*new.named_parameters(), *new.named_buffers()]:
        source = before.get(name)
        if source is not None and source.dim() == tensor.dim() and source.dtype == tensor.dtype:
            _copy(tensor, source)


def _copy(tensor: Tensor, source: Tensor) -> None:
    overlap = tuple(slice(min(a, b)) for a, b in zip(tensor.shape, source.shape, strict=True))
    if tensor.dim() > 1 and tensor.shape[1] > source.shape[1]:
        tensor[overlap[0], source.shape[1] :] = 0
    tensor[overlap] = source[overlap].to(tensor.device)
