"""Episodes of a Minari dataset that lies on this computer.

In: its id. Out: episodes. Nothing is fetched from elsewhere.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from policysmith.errors import DatasetError, missing_extra
from policysmith.policy.spaces import leaf_spaces, pick
from policysmith.registry import register
from policysmith.training.datasets.episodes import ACTION, OBSERVATION, Episodes
from policysmith.training.datasets.numpy_arrays import from_arrays

__all__ = ["MinariDataset"]


@register("minari", slot="dataset")
class MinariDataset:
    """A Minari dataset that was downloaded before; needs the extra `minari`.

    Args:
        id: its name, such as `D4RL/pen/human-v2`.
    """

    def __init__(self, id: str) -> None:
        self.id = id

    def open(self) -> Episodes:
        """The episodes, read into memory."""
        try:
            minari: Any = importlib.import_module("minari")
        except ImportError as error:
            raise missing_extra("minari", "minari") from error
        try:
            dataset = minari.load_dataset(self.id)
        except FileNotFoundError as error:
            raise DatasetError(f"{self.id}: is not on this computer; run `minari download {self.id}`") from error
        return _episodes(dataset, self.id)


def _episodes(dataset: Any, place: str) -> Episodes:
    episodes = list(dataset.iterate_episodes())
    observations = list(leaf_spaces(dataset.observation_space, OBSERVATION))
    actions = list(leaf_spaces(dataset.action_space, ACTION))
    arrays: dict[str, Any] = {
        "lengths": np.array([len(episode.rewards) for episode in episodes]),
        "reward": np.concatenate([episode.rewards for episode in episodes]),
        "terminated": np.concatenate([episode.terminations for episode in episodes]),
    }
    for path, _ in observations:
        name, leaves = ".".join(map(str, (OBSERVATION, *path))), [pick(e.observations, path) for e in episodes]
        arrays[name] = np.concatenate([leaf[:-1] for leaf in leaves])
        arrays[f"last_{name}"] = np.stack([leaf[-1] for leaf in leaves])
    for path, _ in actions:
        name = ".".join(map(str, (ACTION, *path)))
        arrays[name] = np.concatenate([pick(episode.actions, path) for episode in episodes])
    return from_arrays(arrays, dataset.observation_space, dataset.action_space, place)
