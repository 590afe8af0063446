"""Episodes in parquet files, laid out as LeRobot's datasets are: `meta/info.json` and `data/**/*.parquet`.

In: a directory. Out: episodes. Videos are not read: they are pictures beside the data, not in it.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from policysmith.errors import DatasetError, missing_extra
from policysmith.registry import register
from policysmith.training.datasets.episodes import ACTION, OBSERVATION, REWARD, Episodes
from policysmith.training.datasets.numpy_arrays import from_arrays

__all__ = ["ParquetDataset"]

EPISODE, ORDER, THEIR_REWARD, THEIR_END = "episode_index", "frame_index", "next.reward", "next.done"


@register("parquet", slot="dataset", paths=("path",))
class ParquetDataset:
    """Parquet episodes as LeRobot lays them out (versions 2 and 3); needs the extra `parquet`.

    Features `observation.…` and `action` are read as they are called, `next.reward` as rewards. Nothing in the layout
    tells a failed or finished episode from one that was cut off: `next.done` at its end is taken as its own end.

    Args:
        path: directory with `meta` and `data`, from the file that names it.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self) -> Episodes:
        """The episodes, read into memory."""
        try:
            parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise missing_extra("pyarrow", "parquet") from error
        directory = Path(self.path)
        names = _columns(directory)
        files = sorted((directory / "data").rglob("*.parquet"))
        if not files:
            raise DatasetError(f"{directory / 'data'}: holds no parquet file")
        parts = [_read(parquet, file, names) for file in files]
        table = {name: np.concatenate([part[name] for part in parts]) for name in names}
        return _episodes(table, str(directory))


def _columns(directory: Path) -> list[str]:
    """The features to read: those of observation and action that are numbers, and what tells episodes."""
    file = directory / "meta" / "info.json"
    try:
        features = json.loads(file.read_text(encoding="utf-8"))["features"]
        read = [
            name
            for name, feature in features.items()
            if name.split(".")[0] in (OBSERVATION, ACTION) and feature["dtype"] not in ("video", "image", "string")
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{file}: cannot be read: {type(error).__name__}: {error}") from None
    return [*read, EPISODE, ORDER, *(name for name in (THEIR_REWARD, THEIR_END) if name in features)]


def _read(parquet: Any, file: Path, names: list[str]) -> dict[str, np.ndarray]:
    try:
        table = parquet.read_table(file, columns=names)
        return {name: _array(table[name].to_numpy()) for name in names}
    except Exception as error:  # pyarrow has errors of its own, which can't be named where it is not installed
        raise DatasetError(f"{file}: cannot be read: {type(error).__name__}: {error}") from error


def _array(column: np.ndarray) -> np.ndarray:
    """Lists come as an array of arrays."""
    return np.stack([np.stack(row) if row.dtype == object else row for row in column]) if _nested(column) else column


def _nested(column: np.ndarray) -> bool:
    return column.dtype == object and len(column) > 0 and isinstance(column[0], np.ndarray)


def _episodes(table: dict[str, np.ndarray], place: str) -> Episodes:
    order = np.lexsort((table.pop(ORDER), table[EPISODE]))
    table = {name: column[order] for name, column in table.items()}
    _, lengths = np.unique(table.pop(EPISODE), return_counts=True)
    arrays = {REWARD if name == THEIR_REWARD else name: column for name, column in table.items() if name != THEIR_END}
    if THEIR_END in table:
        arrays["terminated"] = table[THEIR_END].astype(bool)
    return from_arrays({**arrays, "lengths": lengths}, place=place)
