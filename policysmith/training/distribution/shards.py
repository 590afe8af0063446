"""Checkpoints in shards, by torch.distributed.checkpoint: each rank writes what it has, and any number of ranks reads.

In: a policy, its training state and a run's directory. Out: `shards/<step>/` in it, which an artifact later replaces.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from policysmith.errors import CheckpointError
from policysmith.ops.quiet import quiet
from policysmith.policy.actor_critic import ActorCritic
from policysmith.store import TrainingState, load_training
from policysmith.store.files import write_synced
from policysmith.store.json_files import json_bytes
from policysmith.training.distribution.world import World
from policysmith.training.optim.step_guard import all_finite

__all__ = ["Stored", "below", "newest", "remove_shards", "write_shards", "FOLDER"]

FOLDER, DATA = "shards", "training_state.json"
MODEL, TRAINING = "model/", "training/"


class Stored(NamedTuple):
    """Where a run stood: its training state, and the policy's tensors where they are newer than the artifact's."""

    training: TrainingState
    weights: dict[str, Tensor] | None = None


def write_shards(directory: Path, policy: ActorCritic, training: TrainingState, world: World) -> Path:
    """Write a checkpoint of this step, in place of that of an earlier one; called by all ranks.

    It counts from when its data is written, which is last.
    """
    place = directory / FOLDER / str(training.data["step"])
    tensors = {MODEL + name: tensor for name, tensor in policy.state_dict().items()}
    tensors |= {TRAINING + name: tensor for name, tensor in training.tensors.items()}
    if world.any(not all_finite(tensor.detach() for tensor in tensors.values() if tensor.is_floating_point())):
        raise CheckpointError(f"{place}: nothing that is not finite is stored; go back to the last finite policy")
    if world.writes:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    world.told(None)
    save(tensors, checkpoint_id=place)
    if world.writes:
        write_synced(place / DATA, json_bytes(training.data, DATA))
        for other in place.parent.iterdir():
            if other != place:
                shutil.rmtree(other, ignore_errors=True)
    world.told(None)
    return place


def remove_shards(directory: Path) -> None:
    """Remove checkpoints that an artifact has taken the place of."""
    shutil.rmtree(directory / FOLDER, ignore_errors=True)


def newest(directory: Path) -> Stored | None:
    """Where the run in a directory stood last: its artifact's training state, or that of shards that are newer."""
    artifact = load_training(directory)
    steps = [int(p.name) for p in (directory / FOLDER).glob("*") if p.name.isdigit() and (p / DATA).is_file()]
    if not steps or (artifact is not None and artifact.data["step"] >= max(steps)):
        return None if artifact is None else Stored(artifact)
    return _read(directory / FOLDER / str(max(steps)))


def _read(place: Path) -> Stored:
    try:
        data: Mapping[str, Any] = json.loads((place / DATA).read_text(encoding="utf-8"))
        reader = FileSystemReader(place)
        found = reader.read_metadata().state_dict_metadata
        tensors: dict[str, Any] = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)
            for name, entry in found.items()
            if isinstance(entry, TensorStorageMetadata)
        }
        with quiet(".*single process.*"):
            load(tensors, storage_reader=reader, no_dist=True)
    except (OSError, ValueError, KeyError, CheckpointException) as error:
        text = f"{place}: is damaged: {error}; remove it to go on from the artifact beside it"
        raise CheckpointError(text) from error
    return Stored(TrainingState(below(TRAINING, tensors), data), below(MODEL, tensors))


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
