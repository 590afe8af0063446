"""Experts of the flowrl trainer of parallel skills: an actor and a critic for each, as flax keeps them.

In: arrays by name (`.npz`, `.safetensors`, or nested mappings), and the run's `remap.json`. Out: one policy of model
type `moe`, and every expert by itself under its number in the library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from gymnasium import spaces
from torch import Tensor

from policysmith.config.spelling import Spelled, spelled_mapping
from policysmith.dialects.flowrl.library import add_experts
from policysmith.dialects.flowrl.weights import component_of, fitted, of_expert, our_name, our_tensor, read_arrays
from policysmith.dialects.imported import Imported, refuse_weights
from policysmith.dialects.rebuild import rebuild
from policysmith.errors import CheckpointError, ConfigError, Problem
from policysmith.registry import Registry, register

__all__ = ["FlowrlGrammar", "ImportedExperts", "read"]


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

    def take_up(self, root: Path, names: Mapping[int, str]) -> list[str]:
        """Add every expert to the skill library in `root`; returns a line for each. `names` go before the run's.

        Raises `PolicysmithError` for experts without a name, before any is added.
        """
        return add_experts(root, self.experts, {**self.skills, **names}, names, self.frames, self.dependencies)


SKILLS = Spelled(
    "INDEX=NAME",
    spelled_mapping(
        r"\d{1,9}",
        r".*\S.*",
        lambda number, name: (int(number), name),
        "is no skill: write the expert's number and its name, as in 0=Wood",
    ),
    repeated=True,
)


def store(
    imported: ImportedExperts,
    output: Path | None = None,
    *,
    library: Path | None = None,
    skill: Annotated[Mapping[int, str], SKILLS] | None = None,
) -> dict[str, Any]:
    """Store the policy in `output`, take its experts up into a library, or both; returns what to tell of the library.

    Args:
        imported: what was read.
        output: where the policy goes.
        library: take the experts up into this library of skills.
        skill: whose an expert is, by its number there.
    """
    if output is None and library is None:
        raise ConfigError([Problem("output", "say where the policy goes")])
    told = {} if library is None else {"library": library, "skills": imported.take_up(library, skill or {})}
    if output is not None:
        imported.save(output)
    return told


def read(
    path: str | Path | Mapping[str, Any],
    weights: None = None,
    *,
    remap: str | Path | Mapping[str, Any] | None = None,
    activation: str = "tanh",
    registry: Registry | None = None,
) -> ImportedExperts:
    """The experts in a file of arrays, in eval mode on the CPU.

    Args:
        path: `.npz` or `.safetensors` with `params/params/actor_networks_<i>/layers_<0|2|…>/kernel` and so on (or
            `actor_network/…` of one expert), or nested mappings of arrays.
        weights: nothing: they are what `path` holds.
        remap: the run's `remap.json`, or its content: local index → number in the library. Without it they are equal.
        activation: what is between the layers; the arrays do not tell.
        registry: where the type `moe` is looked up.

    Raises:
        CheckpointError: the file can't be read, is a pickle or an orbax folder, or its arrays are no experts of one
            size; every array that is missing, misshapen or unexpected is named.
    """
    refuse_weights("flowrl", weights)
    file = Path("the given arrays") if isinstance(path, Mapping) else Path(path)
    tensors = read_arrays(file, path if isinstance(path, Mapping) else None)
    found, experts, layers = fitted(file, tensors)
    about = _Remap.of(remap, experts)
    ours = {our_name(name): our_tensor(name, tensor) for name, tensor in tensors.items()}
    model = {"type": "moe", "layer_width": found.sizes.get("width", 1), "num_layers": layers, "activation": activation}
    space = {"observation": spaces.Box(-np.inf, np.inf, (found.sizes["features"],), np.float32)}
    task = spaces.Discrete(len(experts))
    policy = rebuild(
        file,
        model,
        spaces.Dict({**space, "task": task}),
        spaces.Discrete(found.sizes["actions"]),
        {f"components.{component_of(name)}.{name}": tensor for name, tensor in ours.items()},
        registry,
    )
    each = {about.numbers[local]: of_expert(ours, local) for local in experts}
    notes = _notes(tensors, activation, about)
    return ImportedExperts(policy, notes, each, about.skills, about.frames, about.dependencies)


@register("flowrl", slot="grammar")
class FlowrlGrammar:
    """Experts of the flowrl trainer of parallel skills, as arrays."""

    weights_apart = False
    read = staticmethod(read)
    store = staticmethod(store)


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
