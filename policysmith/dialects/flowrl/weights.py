"""How flowrl lays experts out, an actor and a critic for each, and what their tensors are called here.

In: arrays by name, of a file or nested mappings. Out: tensors by plain names, sizes, and our names. Kernels are
(in, out) there, and turned here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from policysmith.dialects.weight_layout import Fit, Shapes, fit
from policysmith.errors import CheckpointError
from policysmith.store.weights_file import listed, printable, read_weights

__all__ = ["component_of", "fitted", "of_expert", "our_name", "our_tensor", "read_arrays"]

NAME = re.compile(r"(actor|critic)_networks_(0|[1-9][0-9]*)/layers_(0|[1-9][0-9]*)/(kernel|bias)")
ALONE = re.compile(r"(actor|critic)_network/(layers_(?:0|[1-9][0-9]*)/(?:kernel|bias))")
HOLDERS = "params/"  # flax puts a network's parameters into one or two of these
ORBAX = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "checkpoint", "d", "default", "ocdbt.process_0")
REMEDY = (
    "in the trainer's own environment restore it and write its arrays with "
    "numpy.savez(file, **flax.traverse_util.flatten_dict(params, sep='/'))"
)


def read_arrays(file: Path, tree: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """The arrays of a file, or of nested mappings, by names without what flax puts around them."""
    return _named(_arrays(file) if tree is None else _flat(tree))


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Tensor]]:
    """Arrays of nested mappings by their path."""
    for key, value in tree.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}/")
        else:
            yield name, _tensor(name, value)


def _arrays(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Arrays of a file by name; no pickle is ever read."""
    if file.is_dir():
        what = "an orbax checkpoint" if any((file / name).exists() for name in ORBAX) else "a directory"
        raise CheckpointError(f"{file}: is {what}, which is not read here; {REMEDY}")
    if file.suffix.lower() == ".safetensors":
        yield from read_weights(file).tensors.items()
        return
    if file.suffix.lower() != ".npz":
        raise CheckpointError(f"{file}: is neither .npz nor .safetensors, and a pickle is never read; {REMEDY}")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            yield from ((name, _tensor(name, arrays[name])) for name in arrays.files)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError, MemoryError, BadZipFile) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{file}: cannot be read as arrays: {printable(reason)}") from None


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise CheckpointError(f"{printable(name)}: holds {array.dtype}, expected floating-point numbers")
    return torch.from_numpy(np.array(array, copy=True))


def _named(arrays: Iterator[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """By names without what flax puts around them; one expert by itself is number 0."""
    found: dict[str, Tensor] = {}
    for name, tensor in arrays:
        plain = name.replace(".", "/")
        while plain.startswith(HOLDERS):
            plain = plain.removeprefix(HOLDERS)
        alone = ALONE.fullmatch(plain)
        plain = f"{alone[1]}_networks_0/{alone[2]}" if alone else plain
        if plain in found:
            raise CheckpointError(f"{printable(name)}: is there twice, once within {HOLDERS!r}")
        found[plain] = tensor
    return found


def fitted(file: Path, tensors: Mapping[str, Tensor]) -> tuple[Fit, list[int], int]:
    """Sizes, local indices and the number of layers, where the arrays are experts of one size."""
    matches = [match for match in map(NAME.fullmatch, tensors) if match is not None]
    if not matches:
        some = ", ".join(printable(name) for name in list(tensors)[:6]) or "nothing"
        raise CheckpointError(f"{file}: holds no experts: expected actor_networks_0/layers_0/kernel …, found {some}")
    experts, layers = (sorted({int(match[group]) for match in matches}) for group in (2, 3))
    shapes: Shapes = {}
    for local in range(experts[-1] + 1 if len(experts) == experts[-1] + 1 else 0):
        for role, outputs in (("actor", "actions"), ("critic", 1)):
            for position, layer in enumerate(range(0, layers[-1] + 1, 2)):
                last = layer == layers[-1]
                sizes = ("width" if position else "features", outputs if last else "width")
                stem = f"{role}_networks_{local}/layers_{layer}"
                shapes |= {f"{stem}/kernel": sizes, f"{stem}/bias": sizes[1:]}
    found = fit(tensors, shapes)
    problems = list(found.problems)
    if not shapes:
        problems = [f"experts are numbered {', '.join(map(str, experts))}; expected 0, 1, 2, … without a gap"]
    elif layers[-1] % 2:
        problems = [f"layers_{layers[-1]}: layers have even numbers, with activations between them", *problems]
    if problems:
        raise CheckpointError(listed(f"{file}: are no experts of flowrl", problems))
    return found, experts, layers[-1] // 2 + 1


def our_name(name: str) -> str:
    """The name of a tensor in a model of type `moe`."""
    return name.replace("/kernel", ".weight").replace("/bias", ".bias").replace("/", ".")


def our_tensor(name: str, tensor: Tensor) -> Tensor:
    """Kernels (in, out) become weights (out, in)."""
    return (tensor.t() if name.endswith("/kernel") else tensor).to(torch.float32, copy=True).contiguous()


def component_of(name: str) -> str:
    """The component that a tensor belongs to."""
    return "policy" if name.startswith("actor") else "state_value"


def of_expert(tensors: Mapping[str, Tensor], local: int) -> dict[str, Tensor]:
    """One expert's tensors under the names of its own file."""
    mark = f"_networks_{local}."  # the point tells 1 from 10
    return {name.replace(mark, "_network.", 1): tensor for name, tensor in tensors.items() if mark in name}
