"""Minari's datasets, made here with its own collector: every step, and the observation that each episode ended with."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from policysmith.api import train_offline
from policysmith.errors import DatasetError
from policysmith.training.datasets.minari import MinariDataset

minari = pytest.importorskip("minari", reason="needs the extra minari")
pytestmark = [pytest.mark.jax, pytest.mark.filterwarnings("ignore::UserWarning")]  # making a dataset takes JAX
pytest.importorskip("h5py", reason="needs the extra minari")


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Three episodes of CartPole, and what was seen while they were recorded."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    environment = minari.DataCollector(gym.make("CartPole-v1"))
    seen = []
    for seed in range(3):
        observation, _ = environment.reset(seed=seed)
        steps, done = [], False
        while not done:
            action = int(observation[2] > 0) if seed else seed
            following, reward, terminated, truncated, _ = environment.step(action)
            steps.append((observation, action, reward, terminated))
            observation, done = following, terminated or truncated
        seen.append((steps, observation))
    environment.create_dataset(dataset_id="policysmith/cartpole-v0", algorithm_name="rule", author="policysmith")
    environment.close()
    environment._tmp_dir.cleanup()  # left to the garbage collector it warns
    return seen


def test_every_step_is_read(recorded):
    episodes = MinariDataset("policysmith/cartpole-v0").open()
    assert episodes.lengths.tolist() == [len(steps) for steps, _ in recorded]
    flat = [step for steps, _ in recorded for step in steps]
    observations, actions, rewards, terminated = (np.array(column) for column in zip(*flat, strict=True))
    closing = episodes.starts + episodes.lengths
    within = torch.ones(len(episodes.columns["reward"]), dtype=torch.bool).index_fill(0, closing, False)
    found = [episodes.columns[name][within] for name in ("observation", "action", "reward", "terminated")]
    for column, expected in zip(found, (observations, actions, rewards, terminated), strict=True):
        np.testing.assert_array_equal(column, expected)
    np.testing.assert_array_equal(episodes.columns["observation"][closing], np.stack([last for _, last in recorded]))


def test_it_is_trained_on(recorded, tmp_path):
    config = {
        "model": {"type": "mlp", "hidden": [16]},
        "training": {"type": "offline", "dataset": {"type": "minari", "id": "policysmith/cartpole-v0"},
                     "objective": "bc", "updates": 20, "batch_size": 16},
    }  # fmt: skip
    result = train_offline(config, output=tmp_path / "run", progress=False, evaluate=False)
    assert (tmp_path / "run" / "model.safetensors").exists() and result.policy.actions.space.n == 2


def test_one_that_is_not_here_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(DatasetError, match="minari download D4RL/nowhere-v0"):
        MinariDataset("D4RL/nowhere-v0").open()
