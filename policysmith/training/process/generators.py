"""The global generators of random numbers: Python's, NumPy's and torch's, as tensors and plain data.

In: nothing but the process. Out: a state that safetensors and JSON can hold, and the generators back in it; and a
stream of its own for what is judged or recorded beside a training.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policysmith.ops.random_stream import random_stream

__all__ = ["generators_kept", "generators_state", "load_generators", "own_generators", "seed_everything"]

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


@contextmanager
def own_generators(seed: int, device: torch.device) -> Iterator[None]:
    """What torch draws inside follows from `seed` alone, and every generator is afterwards as it was.

    On the CPU this thread draws from a stream of its own: torch's global generator is neither read nor written, so
    other threads may draw meanwhile. Python's and NumPy's, which an environment may still use, and the generator of an
    accelerator (`device`) belong to the whole process, and are put back.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with _seeded(seed, device), random_stream(seed):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The generator of an accelerator, begun by the seed and put back."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_rng_state(device)
    with torch.cuda.device(device):
        torch.cuda.manual_seed(seed)
    try:
        yield
    finally:
        torch.cuda.set_rng_state(before, device)
