"""Recording: a dataset holds just what was played, whatever the spaces, the masks and the way environments reset."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch

import policysmith
from policysmith import api
from policysmith.errors import ConfigError, DatasetError, NonFiniteError
from policysmith.policy.actions import ActionDistribution
from policysmith.training.datasets import MemmapDataset
from policysmith.training.environments.random_actions import random_actions
from policysmith.training.environments.return_to_go import ReturnToGo
from policysmith.training.environments.two_player import GAMES
from policysmith.training.rollout.dataset_recording import record_episodes
from policysmith.training.sections import Environment
from tests.training.nonfinite.ill_environment import ill_config


class Everything(gym.Env):
    """Counts in every leaf; episodes last as many steps as the seed says; the reward is the last discrete action."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = gym.spaces.Dict(
        picture=gym.spaces.Box(0, 255, (2, 2), np.uint8),
        place=gym.spaces.Discrete(50, start=1),
    )
    action_space = gym.spaces.Dict(
        choice=gym.spaces.Discrete(3), force=gym.spaces.Box(-1, 1, (2,), np.float64), keys=gym.spaces.MultiBinary(2)
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.length = 0, int(self.np_random.integers(2, 6))
        return self._see(), {}

    def _see(self):
        return {"picture": np.full((2, 2), self.steps, np.uint8), "place": self.steps + 1}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        over = self.steps >= self.length
        return self._see(), float(action["choice"]), over and self.length % 2 == 0, over and self.length % 2 == 1, {}


gym.register("policysmith/Everything-v0", entry_point=Everything)
REMEMBERING = {
    "type": "graph",
    "components": {
        "memory": {"type": "lstm", "in_keys": "observation", "hidden_size": 4},
        "policy": {"type": "action_head", "in_keys": "memory"},
        "state_value": {"type": "value_head", "in_keys": "memory"},
    },
}


def policy_for(environment, model="mlp", **sections):
    return policysmith.build({"environment": environment, "model": model, "seed": 0, **sections})


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_every_leaf_is_recorded_as_the_environment_gave_it(autoreset, share):
    section = {"id": "policysmith/Everything-v0", "autoreset": autoreset}
    policy = policy_for(section)
    found = record_episodes(policy, Environment(**section), 20, share, deterministic=False)
    assert len(found) == 20 and set(found.columns) == {
        "observation.picture", "observation.place", "action.choice", "action.force", "action.keys",
        "reward", "terminated",
    }  # fmt: skip
    for start, length in zip(found.starts.tolist(), found.lengths.tolist(), strict=True):
        rows = slice(start, start + length)
        assert found.columns["observation.place"][start : start + length + 1].tolist() == list(range(1, length + 2))
        assert found.columns["observation.picture"][start + length].unique().item() == length
        assert torch.equal(found.columns["reward"][rows], found.columns["action.choice"][rows].float())
        assert found.columns["terminated"][rows].tolist() == [*[False] * (length - 1), length % 2 == 0]
    assert found.columns["observation.picture"].dtype == torch.uint8


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_a_policy_with_memory_plays_as_its_evaluation_does(autoreset):
    section = {"id": "CartPole-v1", "autoreset": autoreset}
    policy = policy_for(section, REMEMBERING, evaluation={"episodes": 6, "seed": 3})
    found = record_episodes(policy, Environment(**section), 6, seed=3)
    assert found.returns(1.0)[found.starts].tolist() == list(policysmith.evaluate(policy).returns)


def test_recorded_actions_are_those_the_policy_takes():
    section = {"id": "CartPole-v1"}
    policy = policy_for(section)
    found = record_episodes(policy, Environment(**section), 3)
    rows = found.rows(torch.arange(3))
    action, _ = policy.predict(found.columns["observation"][rows].numpy())
    assert action.tolist() == found.columns["action"][rows].tolist()


def test_legal_actions_alone_are_recorded():
    """The environment raises for an illegal one; masks come in the info."""
    section = {"id": "policysmith/MaskedBandit-v0"}
    found = record_episodes(policy_for(section), Environment(**section), 50, 0.5, deterministic=False)
    legal = found.columns["action_mask"].gather(1, found.columns["action"].unsqueeze(1))
    assert legal[found.rows(torch.arange(50))].all()


def test_random_actions_come_in_their_share():
    section = {"id": "CartPole-v1"}
    policy = policy_for(section)
    found = record_episodes(policy, Environment(**section), 40, 0.5)
    rows = found.rows(torch.arange(40))
    action, _ = policy.predict(found.columns["observation"][rows].numpy())
    changed = (torch.as_tensor(action) != found.columns["action"][rows]).float().mean()
    assert 0.15 < changed < 0.35  # half of those drawn at random are what the policy would have done


def test_recording_leaves_the_policy_and_the_generator_alone():
    section = {"id": "CartPole-v1"}
    policy = policy_for(section).train()
    before = torch.get_rng_state()
    first = record_episodes(policy, Environment(**section), 2, 0.3, deterministic=False)
    assert policy.training and torch.equal(before, torch.get_rng_state())
    again = record_episodes(policy, Environment(**section), 2, 0.3, deterministic=False)
    assert all(torch.equal(column, again.columns[name]) for name, column in first.columns.items())


def test_a_dataset_tells_where_it_comes_from(tmp_path):
    policy = policy_for({"id": "policysmith/Countdown-v0"})
    place = api.record(policy, tmp_path / "data", 4, random_share=0.25, seed=5)
    found = MemmapDataset(str(place)).open()
    assert found.lengths.tolist() == [3] * 4 and found.observation_space == policy.observations.space
    origin = json.loads((place / "dataset.json").read_text())["origin"]
    assert origin["policy"]["environment"]["id"] == "policysmith/Countdown-v0"
    assert (origin["random_share"], origin["seed"], origin["mean_return"]) == (0.25, 5, 3.0)
    with pytest.raises(DatasetError, match="holds something already"):
        api.record(policy, tmp_path / "data", 1)


@pytest.mark.parametrize(
    ("sections", "options", "message"),
    [
        ({"environment": {"id": "connect_four"}}, {}, "is a game for two"),
        ({}, {"episodes": 0}, "at least one episode"),
        ({}, {"random_share": 1.5}, "between 0 and 1, found 1.5"),
    ],
)
def test_what_can_not_be_recorded_is_refused(tmp_path, sections, options, message):
    if "environment" in sections:
        sections = {"environment": {"id": next(iter(GAMES))}}
    policy = policysmith.build({"environment": {"id": "CartPole-v1"}, "model": "mlp"})
    policy.config.update(sections)
    with pytest.raises(ConfigError, match=message):
        api.record(policy, tmp_path / "data", **{"episodes": 2} | options)


def test_recording_needs_an_environment(tmp_path):
    policy = policysmith.build({"model": "mlp"}, gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2))
    with pytest.raises(ConfigError, match="no environment to record"):
        api.record(policy, tmp_path / "data", 2)


def test_random_actions_keep_to_bounds_and_masks():
    low, high = np.array([-1, 0, -np.inf, -np.inf], np.float32), np.array([3, np.inf, 2, np.inf], np.float32)
    space = gym.spaces.Dict(number=gym.spaces.Box(low, high), choice=gym.spaces.MultiDiscrete([2, 3]))
    mask = torch.tensor([1, 0, 0, 1, 1], dtype=torch.bool).expand(500, 5)
    number, choice = random_actions(ActionDistribution(space), [mask], 500)
    assert set(choice[:, 0].tolist()) == {0} and set(choice[:, 1].tolist()) == {1, 2}
    assert (number >= torch.as_tensor(low)).all() and (number <= torch.as_tensor(high)).all()
    assert number.isfinite().all() and number[:, 0].max() > 2.5 and number[:, 3].std() > 0.8


def test_the_return_that_is_wanted_is_told():
    plain = ReturnToGo(gym.make("CartPole-v1"), 3.0)
    assert list(plain.observation_space) == ["observation", "return_to_go"]
    assert plain.reset(seed=0)[0]["return_to_go"] == 3.0
    assert [plain.step(0)[0]["return_to_go"].item() for _ in range(2)] == [2.0, 1.0]
    assert plain.reset(seed=0)[0]["return_to_go"] == 3.0
    nested = ReturnToGo(gym.make("policysmith/Everything-v0"), 1.0)
    assert list(nested.observation_space) == ["picture", "place", "return_to_go"]
    assert nested.observation_space.contains(nested.reset(seed=0)[0])
    with pytest.raises(ConfigError, match="has a leaf 'return_to_go' already"):
        ReturnToGo(nested, 1.0)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("kind", ["reward", "observation"])
def test_episodes_with_numbers_that_are_not_finite_are_left_out(kind, autoreset):
    config = ill_config(kind=kind, autoreset=autoreset)
    policy = policysmith.build(config)
    found = record_episodes(policy, Environment(**config["environment"]), 5)
    assert len(found) == 5 and found.lengths.tolist() == [9] * 5
    assert all(found.not_finite(name) == "" for name in found.columns)
    section = ill_config(kind=kind, autoreset=autoreset, every=1)["environment"]
    with pytest.raises(NonFiniteError, match=f"{kind} is nan, for the 10th episode in a row"):
        record_episodes(policy, Environment(**section), 5)
