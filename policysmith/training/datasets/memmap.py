"""Episodes as memory-mapped files: `dataset.json`, and a TensorDict's directory of columns, `steps/`.

In: episodes. Out: a directory put in place all at once, and from it the same episodes again, read as they are needed.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from policysmith.errors import CheckpointError, DatasetError
from policysmith.registry import register
from policysmith.store.files import sync_directory, write_synced
from policysmith.store.json_files import json_bytes
from policysmith.store.space_codec import decode_space, encode_space
from policysmith.training.datasets.episodes import Episodes

__all__ = ["MemmapDataset", "write_episodes"]

ABOUT, STEPS = "dataset.json", "steps"
FORMAT = 1
DTYPES = {str(np.dtype(name)): name for name in (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
)}  # fmt: skip


@register("memmap", slot="dataset", paths=("path",))
class MemmapDataset:
    """Memory-mapped episodes, as `policysmith record` writes them; only the rows in use are read.

    Args:
        path: directory with `dataset.json`, from the file that names it.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self) -> Episodes:
        """The episodes, their columns mapped; the files are never changed."""
        directory = Path(self.path)
        about = _read(directory)
        try:
            lengths = torch.tensor(about["lengths"], dtype=torch.int64).reshape(-1)
            if not len(lengths) or int(lengths.min()) < 1:
                raise ValueError("it lists no episode, or one without a step")
            rows = int((lengths + 1).sum())
            columns = {name: _mapped(directory, rows, name, entry) for name, entry in about["columns"].items()}
            spaces = {key: decode_space(about[key]) for key in ("observation_space", "action_space")}
            final = about["final"] is True
        except (KeyError, TypeError, ValueError, AttributeError, CheckpointError) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{directory / ABOUT}: is damaged ({type(error).__name__}: {error})") from None
        return Episodes(columns, lengths, **spaces, final=final, place=str(directory))


def write_episodes(directory: str | Path, episodes: Episodes, origin: Mapping[str, Any] | None = None) -> Path:
    """Store episodes, with plain data on where they come from; both spaces must be known.

    Raises `DatasetError` for a directory that holds something already: recorded data is not written over.
    """
    target = Path(directory).resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(f"{directory}: holds something already; choose another directory, or move this one away")
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    keys = {name: _key(name, index) for index, name in enumerate(episodes.columns)}
    try:
        fresh.mkdir()
        columns = {keys[name]: column.contiguous() for name, column in episodes.columns.items()}
        TensorDict(columns, batch_size=[len(next(iter(columns.values())))]).memmap(fresh / STEPS)
        write_synced(fresh / ABOUT, json_bytes(_about(episodes, keys, origin or {}), ABOUT))
        for file in (fresh / STEPS).iterdir():
            _sync(file)
        sync_directory(fresh / STEPS)
        sync_directory(fresh)
        fresh.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        raise DatasetError(f"{directory}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Path(directory)


def _about(episodes: Episodes, keys: Mapping[str, str], origin: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": "policysmith dataset",
        "episodes": len(episodes),
        "steps": episodes.steps,
        "final": episodes.final,
        "columns": {
            name: {"key": keys[name], "dtype": str(column.dtype).removeprefix("torch."), "shape": [*column.shape[1:]]}
            for name, column in episodes.columns.items()
        },
        "observation_space": encode_space(episodes.observation_space),
        "action_space": encode_space(episodes.action_space),
        "origin": dict(origin),
        "lengths": episodes.lengths.tolist(),
    }


def _key(name: str, index: int) -> str:
    """The column's name where it is a safe name of a file; spaces may have keys of any text."""
    return name if re.fullmatch(r"\w[\w.-]*", name, re.ASCII) else f"column_{index}"


def _read(directory: Path) -> dict[str, Any]:
    file = directory / ABOUT
    try:
        about = json.loads(file.read_bytes())
    except FileNotFoundError:
        what = f"holds no {ABOUT}" if directory.is_dir() else "there is no such directory"
        raise DatasetError(f"{directory}: {what}; record one with `policysmith record`") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file}: cannot be read: {error}") from None
    if not isinstance(about, dict) or about.get("kind") != "policysmith dataset":
        raise DatasetError(f"{file}: is not the description of a policysmith dataset")
    if about.get("format") != FORMAT:
        raise DatasetError(
            f"{file}: has format {about.get('format')!r}, and this version reads {FORMAT}; install a newer one"
        )
    return about


def _mapped(directory: Path, rows: int, name: str, entry: Mapping[str, Any]) -> Tensor:
    """One column; its file must have just the bytes that its shape needs."""
    key, shape = str(entry["key"]), (rows, *map(int, entry["shape"]))
    if entry["dtype"] not in DTYPES or Path(key).name != key:
        raise ValueError(f"column {name!r} can't be of dtype {entry['dtype']!r} in {key!r}")
    dtype, file = np.dtype(DTYPES[entry["dtype"]]), directory / STEPS / f"{key}.memmap"
    wanted = math.prod(shape) * dtype.itemsize
    found = file.stat().st_size if file.is_file() else None
    if found != wanted:
        what = "is missing" if found is None else f"has {found:,} bytes, and {wanted:,} are needed"
        raise DatasetError(f"{file}: {what}: the dataset was not copied or written whole")
    # Copy-on-write, so that a dataset may lie where nothing can be written.
    return torch.from_numpy(np.memmap(file, dtype, "c", shape=shape))


def _sync(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
