"""The global generators of random numbers: Python's, NumPy's and torch's, as tensors and plain data.

In: nothing but the process. Out: a state that safetensors and JSON can hold, and the generators back in it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["generators_kept", "generators_state", "load_generators", "seed_everything"]

TORCH, NUMPY, PYTHON, CUDA = "torch", "numpy", "python", "cuda/"
MERSENNE = "MT19937"


def seed_everything(seed: int | None) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # environments may still use the global generator
        torch.manual_seed(seed)


def generators_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and plain data, that `load_generators` takes."""
    version, words, gauss = random.getstate()
    tensors = {TORCH: torch.get_rng_state(), PYTHON: torch.tensor(words, dtype=torch.int64)}
    data: dict[str, Any] = {PYTHON: [version, gauss]}
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    if kind == MERSENNE:  # a program may have put another one in its place
        tensors[NUMPY] = torch.from_numpy(np.asarray(keys).astype(np.int64))
        data[NUMPY] = [int(position), int(has_gauss), float(cached)]
    if torch.cuda.is_initialized():
        tensors |= {f"{CUDA}{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return tensors, data


def load_generators(tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
    """Take up what `generators_state` gave; a generator that is not in it stays as it is."""
    torch.set_rng_state(tensors[TORCH])
    if PYTHON in tensors and PYTHON in data:
        version, gauss = data[PYTHON]
        random.setstate((version, tuple(tensors[PYTHON].tolist()), gauss))
    if NUMPY in tensors and NUMPY in data:
        np.random.set_state((MERSENNE, tensors[NUMPY].numpy().astype(np.uint32), *data[NUMPY]))
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for device in range(devices):
        if f"{CUDA}{device}" in tensors:
            torch.cuda.set_rng_state(tensors[f"{CUDA}{device}"], device)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Whatever is drawn inside, the generators are afterwards as they were."""
    tensors, data = generators_state()
    try:
        yield
    finally:
        load_generators(tensors, data)
