"""Tensors as the bytes of a safetensors file, and back; only what a policy can act by is stored.

In: tensors by name. Out: bytes, and the tensors again. torch is imported by the first call: whoever stores tensors
imports this file, also to list what it stored, which must not take the seconds that torch does.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
from safetensors import SafetensorError

from policysmith.errors import CheckpointError
from policysmith.store.json_files import damaged

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["pack", "stored_tensor", "unpacked"]

TensorSpec = getattr(safetensors, "TensorSpec", None)  # older versions take their tensors in another way


def pack(tensors: Mapping[str, Tensor], file: str) -> bytes:
    """Tensors as the bytes of a safetensors file, called `file` in messages; equal tensors give equal bytes."""
    try:
        return _serialized(dict(tensors))
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        dtypes = ", ".join(sorted({str(tensor.dtype) for tensor in tensors.values()}))
        raise CheckpointError(f"{file}: tensors of {dtypes} cannot be stored as safetensors: {error}") from error


def _serialized(tensors: dict[str, Tensor]) -> bytes:
    """The library's own `save`, which looks at each tensor for thirty times as long as it takes to write small ones."""
    import torch
    from safetensors.torch import save

    empty = torch.zeros(1)
    plain = all(tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in tensors.values())
    if TensorSpec is None or not plain or sys.byteorder != "little":
        return bytes(save(tensors, {"format": "pt"}))
    specs = {
        name: TensorSpec(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tensor.shape,
            data_ptr=tensor.data_ptr() or empty.data_ptr(),  # one of no elements may lie nowhere
            data_len=tensor.nbytes,
        )
        for name, tensor in tensors.items()
    }
    return bytes(safetensors.serialize(specs, {"format": "pt"}))


def unpacked(file: str | Path, content: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises `CheckpointError` naming `file`."""
    from safetensors.torch import load

    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise damaged(file, f"it is no safetensors file: {error}") from None


def stored_tensor(name: str, tensor: Any, *, copy: bool = True) -> Tensor:
    """The tensor on the CPU as the file format wants it, in memory of its own, or with `copy=False` as it lies there.

    Raises `CheckpointError`, also for numbers that are not finite: whoever loaded them could not act by them.
    """
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_meta:
        raise CheckpointError(f"{name}: only plain tensors with values can be stored, found {type(tensor).__name__}")
    if bad := unfit_numbers(tensor.detach()):
        raise CheckpointError(
            f"{name}: {bad:,} of {tensor.numel():,} numbers are not finite, and nothing of the kind is stored; go back "
            "to the last finite policy, or make a buffer that holds inf on purpose persistent=False"
        )
    return tensor.detach().to("cpu", copy=copy).contiguous()


def unfit_numbers(tensor: Tensor) -> int:
    """How many numbers of a tensor are NaN or inf."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return 0
    finite = (tensor if tensor.element_size() > 1 else tensor.float()).isfinite()  # not known of 8-bit floats
    return 0 if finite.all() else int((~finite).sum())
