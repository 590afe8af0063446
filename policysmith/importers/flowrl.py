"""Experts of the flowrl trainer of parallel skills: an actor and a critic for each, as flax keeps them.

In: arrays by name (`.npz`, `.safetensors`, or nested mappings), and the run's `remap.json`. Out: one policy of model
type `moe`, and every expert by itself under its number in the library. Kernels are (in, out) there, and turned here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policysmith.errors import CheckpointError
from policysmith.importers.checkpoint import listed, printable, read_weights
from policysmith.importers.dialects import Imported
from policysmith.importers.layout import Fit, Shapes, fit
from policysmith.importers.rebuild import rebuild
from policysmith.registry import Registry

__all__ = ["ImportedExperts", "read"]

NAME = re.compile(r"(actor|critic)_networks_(0|[1-9][0-9]*)/layers_(0|[1-9][0-9]*)/(kernel|bias)")
ALONE = re.compile(r"(actor|critic)_network/(layers_(?:0|[1-9][0-9]*)/(?:kernel|bias))")
HOLDERS = "params/"  # flax puts a network's parameters into one or two of these
ORBAX = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "checkpoint", "d", "default", "ocdbt.process_0")
REMEDY = (
    "in the trainer's own environment restore it and write its arrays with "
    "numpy.savez(file, **flax.traverse_util.flatten_dict(params, sep='/'))"
)


@dataclass(frozen=True, eq=False)
class ImportedExperts(Imported):
    """A policy of all experts, and each by itself.

    `experts` are tensors (`actor_network.layers_0.weight` …) by number in the library; so are `skills` (the names that
    are known) and `frames` (as far as they are told). `dependencies` are names whose numbers nothing tells.
    """

    experts: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    skills: Mapping[int, str] = field(default_factory=dict)
    frames: Mapping[int, int] = field(default_factory=dict)
    dependencies: tuple[str, ...] = ()


def read(
    path: str | Path | Mapping[str, Any],
    *,
    remap: str | Path | Mapping[str, Any] | None = None,
    activation: str = "tanh",
    registry: Registry | None = None,
) -> ImportedExperts:
    """The experts in a file of arrays, in eval mode on the CPU.

    Args:
        path: `.npz` or `.safetensors` with `params/params/actor_networks_<i>/layers_<0|2|…>/kernel` and so on (or
            `actor_network/…` of one expert), or nested mappings of arrays.
        remap: the run's `remap.json`, or its content: local index → number in the library. Without it they are equal.
        activation: what is between the layers; the arrays do not tell.
        registry: where the type `moe` is looked up.

    Raises:
        CheckpointError: the file can't be read, is a pickle or an orbax folder, or its arrays are no experts of one
            size; every array that is missing, misshapen or unexpected is named.
    """
    file = Path("the given arrays") if isinstance(path, Mapping) else Path(path)
    tensors = _named(_flat(path) if isinstance(path, Mapping) else _arrays(file))
    found, experts, layers = _fitted(file, tensors)
    about = _Remap.of(remap, experts)
    ours = {_our_name(name): _ours(name, tensor) for name, tensor in tensors.items()}
    model = {"type": "moe", "layer_width": found.sizes.get("width", 1), "num_layers": layers, "activation": activation}
    space = {"observation": spaces.Box(-np.inf, np.inf, (found.sizes["features"],), np.float32)}
    task = spaces.Discrete(len(experts))
    policy = rebuild(
        file,
        model,
        spaces.Dict({**space, "task": task}),
        spaces.Discrete(found.sizes["actions"]),
        {f"components.{_component(name)}.{name}": tensor for name, tensor in ours.items()},
        registry,
    )
    single = {about.numbers[local]: _single(ours, local) for local in experts}
    notes = _notes(tensors, activation, about)
    return ImportedExperts(policy, notes, single, about.skills, about.frames, about.dependencies)


@dataclass(frozen=True)
class _Remap:
    """What `remap.json` tells: library numbers by local index, names and frames by number."""

    numbers: Mapping[int, int]
    skills: Mapping[int, str] = field(default_factory=dict)
    frames: Mapping[int, int] = field(default_factory=dict)
    dependencies: tuple[str, ...] = ()

    @classmethod
    def of(cls, remap: str | Path | Mapping[str, Any] | None, experts: list[int]) -> _Remap:
        if remap is None:
            return cls({local: local for local in experts})
        file = "remap" if isinstance(remap, Mapping) else str(remap)
        said = dict(remap) if isinstance(remap, Mapping) else _json(Path(remap))
        numbers = _whole_numbers(file, "local_to_global", said.get("local_to_global"))
        if sorted(numbers) != experts or len(set(numbers.values())) != len(numbers):
            raise CheckpointError(f"{file}: local_to_global is {numbers}, and the arrays hold experts {experts}; "
                                  "give the remap.json of the run they are from")  # fmt: skip
        index, name = said.get("global_expert_idx"), said.get("skill_name")
        skills = {index: name} if isinstance(name, str) and type(index) is int and index in numbers.values() else {}
        others = [number for number in numbers.values() if number not in skills]
        named = tuple(str(dependency) for dependency in said.get("dependencies") or () if dependency != name)
        if len(named) == len(others) == 1:
            skills, named = {**skills, others[0]: named[0]}, ()
        counts = said.get("initial_frame_counts") or {}
        frames = {int(k): int(v) for k, v in counts.items() if str(k).isdecimal() and int(k) in numbers.values()}
        return cls(numbers, skills, frames, named)


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


def _fitted(file: Path, tensors: Mapping[str, Tensor]) -> tuple[Fit, list[int], int]:
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


def _our_name(name: str) -> str:
    return name.replace("/kernel", ".weight").replace("/bias", ".bias").replace("/", ".")


def _ours(name: str, tensor: Tensor) -> Tensor:
    """Kernels (in, out) become weights (out, in)."""
    return (tensor.t() if name.endswith("/kernel") else tensor).to(torch.float32, copy=True).contiguous()


def _component(name: str) -> str:
    return "policy" if name.startswith("actor") else "state_value"


def _single(tensors: Mapping[str, Tensor], local: int) -> dict[str, Tensor]:
    """One expert's tensors under the names of its own file."""
    mark = f"_networks_{local}."  # the point tells 1 from 10
    return {name.replace(mark, "_network.", 1): tensor for name, tensor in tensors.items() if mark in name}


def _notes(tensors: Mapping[str, Tensor], activation: str, about: _Remap) -> tuple[str, ...]:
    notes = [f"the activation is taken to be {activation}: the arrays do not tell"]
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()} - {"float32"})
    notes += [f"weights were {', '.join(dtypes)}, and are stored as float32"] if dtypes else []
    moved = [f"{local} → {number}" for local, number in about.numbers.items() if local != number]
    notes += [f"experts by their numbers in the library: {', '.join(moved)}"] if moved else []
    notes += [f"frames before the run: {about.frames}; those of the run itself are not told"] if about.frames else []
    return tuple(notes)


def _json(file: Path) -> dict[str, Any]:
    try:
        said = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read as JSON: {error}") from None
    if not isinstance(said, dict):
        raise CheckpointError(f"{file}: holds a {type(said).__name__}, expected the mapping of a remap.json")
    return said


def _whole_numbers(file: str, key: str, value: Any) -> dict[int, int]:
    """A mapping of whole numbers, whose keys JSON has made texts."""
    entries = value.items() if isinstance(value, Mapping) else ()
    found = {int(k): v for k, v in entries if str(k).isdecimal() and type(v) is int and v >= 0}
    if not found or len(found) != len(value):
        raise CheckpointError(f"{file}: {key} is {value!r}, expected indices to indices, as in {{'0': 2}}")
    return found
