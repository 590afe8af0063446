"""Behaviour cloning on memory-mapped episodes: our trainer beside a loop written by hand.

In: nothing. Out: rows of the result table. The peer indexes the same files through `TensorDict.load_memmap`, and steps
an `nn.Sequential` of the same layers with `torch.optim.Adam` on the cross-entropy.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import nn

from benchmarks.harness import Row, compare, throughput

FEATURES, ACTIONS, HIDDEN, BATCH = 64, 8, 256, 256
EPISODES, STEPS, UPDATES = 100, 500, 20


def offline_cloning() -> list[Row]:
    """Updates a second, batches drawn, gradients clipped and metrics kept."""
    with tempfile.TemporaryDirectory() as folder:
        place = _record(Path(folder) / "data")
        comparison = compare(_ours(place), _by_hand(place), rounds=31, inner=1)
    name = f"behaviour cloning, 2×{HIDDEN} MLP, batch {BATCH}, memory-mapped, against a loop by hand"
    return [throughput(name, comparison, 0.9, steps=UPDATES)]


def _record(place: Path) -> Path:
    from policysmith.training.datasets import from_arrays, write_episodes

    rng, rows = np.random.default_rng(0), EPISODES * STEPS
    arrays = {
        "observation": rng.normal(size=(rows, FEATURES)).astype(np.float32),
        "action": rng.integers(ACTIONS, size=rows),
        "reward": rng.normal(size=rows).astype(np.float32),
        "lengths": np.full(EPISODES, STEPS),
    }
    box = spaces.Box(-np.inf, np.inf, (FEATURES,), np.float32)
    return write_episodes(place, from_arrays(arrays, box, spaces.Discrete(ACTIONS)))


class _Silent:
    """A watcher that lets the training go on."""

    def report(self, report: Any) -> bool:
        return False

    def update(self, update: int) -> bool:
        return False


def _ours(place: Path) -> Callable[[], None]:
    import policysmith
    from policysmith.registry import default_registry
    from policysmith.training.datasets import MemmapDataset
    from policysmith.training.offline.objectives import Start
    from policysmith.training.offline.offline import Offline

    episodes = MemmapDataset(str(place)).open()
    config = {"model": {"type": "mlp", "hidden": [HIDDEN, HIDDEN], "activation": "tanh"}}
    policy = policysmith.build(config, episodes.observation_space, episodes.action_space, seed=0)
    algorithm = Offline(updates=UPDATES, batch_size=BATCH, validation_share=0.0)
    learner = algorithm.objective.start(Start(policy, episodes, 0, default_registry))
    samplers, optimizer = algorithm.samplers(learner, episodes, 0), algorithm.optimizer(learner)
    return lambda: algorithm.learn(learner, samplers, optimizer, _Silent())


def _by_hand(place: Path) -> Callable[[], None]:
    from tensordict import TensorDict

    columns = TensorDict.load_memmap(place / "steps")
    seen, acted = (columns[name].as_subclass(torch.Tensor) for name in ("observation", "action"))
    network = nn.Sequential(
        nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, ACTIONS)
    )
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    rows = torch.arange(EPISODES * (STEPS + 1)).reshape(EPISODES, -1)[:, :-1].flatten()  # an episode's last closes it

    def train() -> None:
        order = rows[torch.randperm(len(rows))]
        for chosen in order.split(BATCH)[:UPDATES]:
            loss = F.cross_entropy(network(seen[chosen]), acted[chosen])
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            adam.step()

    return train
