"""Recorded episodes: what they hold, the ways they are stored, and what a policy reads of them."""

from policysmith.training.datasets.episodes import Dataset, Episodes
from policysmith.training.datasets.memmap import MemmapDataset, write_episodes
from policysmith.training.datasets.minari import MinariDataset
from policysmith.training.datasets.numpy_arrays import ArraysDataset, from_arrays
from policysmith.training.datasets.parquet import ParquetDataset

__all__ = [
    "ArraysDataset",
    "Dataset",
    "Episodes",
    "MemmapDataset",
    "MinariDataset",
    "ParquetDataset",
    "from_arrays",
    "write_episodes",
]
