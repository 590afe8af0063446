"""Episodes from arrays: an `.npz` file, a directory of `.npy` files, or arrays in memory.

In: arrays with a row a step, one episode after another, and what tells where episodes end. Out: episodes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from policysmith.errors import DatasetError, did_you_mean
from policysmith.registry import register
from policysmith.training.datasets.episodes import ACTION, MASK, OBSERVATION, REWARD, TERMINATED, Episodes, closed

__all__ = ["ArraysDataset", "from_arrays"]

TRUNCATED, LENGTHS, LAST = "truncated", "lengths", "last_"
NAMES = (OBSERVATION, ACTION, MASK, REWARD, TERMINATED, TRUNCATED, LENGTHS, LAST + OBSERVATION)


@register("arrays", slot="dataset", paths=("path",))
class ArraysDataset:
    """Arrays in an `.npz` file or a directory of `.npy` files; see `from_arrays` for what they are called.

    Args:
        path: the file or directory, from the file that names it.
        names: what an array is called there, where it is not called as here: `{observation: observations}`.
    """

    def __init__(self, path: str, names: dict[str, str] = {}) -> None:  # noqa: B006 - parts get their options anew
        self.path, self.names = path, names

    def open(self) -> Episodes:
        """The episodes; pickled arrays are refused."""
        found = _load(Path(self.path))
        theirs = {there: here for here, there in self.names.items()}
        for there, here in theirs.items():
            if there not in found:
                hint = did_you_mean(there, found) or f"; there are: {', '.join(found)}"
                raise DatasetError(f"{self.path}: has no array {there!r} for {here!r}{hint}")
        return from_arrays({theirs.get(name, name): array for name, array in found.items()}, place=self.path)


def from_arrays(
    arrays: Mapping[str, Any], observation_space: Any = None, action_space: Any = None, place: str = "the arrays"
) -> Episodes:
    """Arrays (Σ T, …), one episode after another, as episodes.

    `observation` and `action` (of structured spaces one a leaf: `observation.image`), and where they are known
    `reward`, `terminated`, `action_mask` and `last_observation` (E, …), which follows the last action. Episodes end
    where `terminated` or `truncated` says so, or have the `lengths` (E,).
    """
    tensors = {name: _tensor(place, name, array) for name, array in arrays.items()}
    for name in tensors:
        if name.split(".")[0] not in NAMES:
            hint = did_you_mean(name, NAMES) or f"; known: {', '.join(NAMES)}"
            raise DatasetError(f"{place}: {name!r} is no array of a dataset{hint}")
    ends = [tensors[name].bool() for name in (TERMINATED, TRUNCATED) if name in tensors]
    lengths = tensors.pop(LENGTHS, None)
    tensors.pop(TRUNCATED, None)
    if any(end.ndim != 1 for end in ends) or (len(ends) == 2 and len(ends[0]) != len(ends[1])):
        raise DatasetError(f"{place}: terminated and truncated must have one number a step")
    if lengths is None:
        lengths = _lengths(torch.stack(ends).any(0), place) if ends else None
    if lengths is None or lengths.ndim != 1:
        raise DatasetError(f"{place}: nothing tells where episodes end: give terminated and truncated, or lengths")
    last = {name.removeprefix(LAST): tensors.pop(name) for name in list(tensors) if name.startswith(LAST)}
    return closed(
        tensors, lengths.long(), last or None,
        observation_space=observation_space, action_space=action_space, place=place,
    )  # fmt: skip


def _lengths(ends: torch.Tensor, place: str) -> torch.Tensor:
    if not len(ends) or not ends[-1]:
        raise DatasetError(f"{place}: the last step ends no episode: the data was cut off, or truncated is not given")
    return torch.diff(ends.nonzero().flatten(), prepend=torch.tensor([-1]))


def _tensor(place: str, name: str, array: Any) -> torch.Tensor:
    try:
        tensor = torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DatasetError(f"{place}: {name!r} holds no numbers: {error}") from None
    if not tensor.ndim:
        raise DatasetError(f"{place}: {name!r} is a single number; expected one a step")
    return tensor


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.is_dir():
            files = sorted(path.glob("*.npy"))
            return {file.stem: np.load(file, allow_pickle=False) for file in files}
        with path.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if not isinstance(found, np.ndarray):
                return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from None
    raise DatasetError(f"{path}: is a single array; give an .npz file, or a directory of .npy files")
