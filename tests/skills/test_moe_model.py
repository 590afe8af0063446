"""The model type `moe`: the same experts from a configuration, through building, training and storing."""

import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import policysmith
from policysmith.errors import ConfigError
from policysmith.skills import ActorCriticMoE

CONFIG = {"model": {"type": "moe", "layer_width": 16, "num_layers": 3}, "seed": 0}
SPACES = {
    "observation_space": spaces.Dict(observation=spaces.Box(-1, 1, (4,), np.float32), task=spaces.Discrete(3)),
    "action_space": spaces.Discrete(2),
}


class FollowTheTask(gym.Env):
    """Rewards the action equal to the task's parity; the task changes from step to step and never is 2."""

    observation_space, action_space = SPACES["observation_space"], SPACES["action_space"]

    def _observe(self):
        self.task = int(self.np_random.integers(2))
        return {"observation": self.np_random.uniform(-1, 1, 4).astype(np.float32), "task": self.task}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 8
        return self._observe(), {}

    def step(self, action):
        reward = float(action == self.task)
        self.left -= 1
        return self._observe(), reward, self.left == 0, False, {}


@pytest.fixture
def environment():
    name = "FollowTheTask-v0"
    gym.register(name, FollowTheTask)
    yield name
    del gym.registry[name]


def test_it_is_the_same_network_as_the_class():
    policy = policysmith.build(CONFIG, **SPACES)
    names = [name for name, _ in policy.named_parameters()]
    pattern = r"components\.(policy\.actor|state_value\.critic)_networks_[012]\.layers_[024]\.(weight|bias)"
    assert len(names) == 2 * 3 * 6 and all(re.fullmatch(pattern, name) for name in names)
    twin = ActorCriticMoE(2, 16, 3, num_tasks=3, in_features=4)
    twin.load_state_dict({n.split(".", 2)[2]: p for n, p in policy.state_dict().items()})
    obs = {"observation": torch.randn(7, 4), "task": torch.tensor([0, 2, 2, 1, 0, 1, 2])}
    torch.testing.assert_close(policy(obs), twin(obs))


def test_heads_start_as_those_of_the_class():
    policy = policysmith.build({"model": {"type": "moe"}, "seed": 0}, **SPACES)
    actor = policy.components["policy"].get_submodule("actor_networks_1.layers_6").weight
    critic = policy.components["state_value"].get_submodule("critic_networks_1.layers_6").weight
    torch.testing.assert_close(torch.linalg.svdvals(actor), torch.full((2,), 0.01))
    torch.testing.assert_close(torch.linalg.svdvals(critic), torch.ones(1))


def test_it_trains_saves_and_loads_and_leaves_the_idle_expert_alone(environment, tmp_path):
    config = {
        **CONFIG,
        "environment": {"id": environment, "num_envs": 2},
        "training": {"type": "ppo", "total_steps": 64, "rollout_steps": 16},
    }
    fresh = policysmith.build(config).state_dict()
    result = policysmith.train(config, output=tmp_path / "policy", progress=False, evaluate=False)
    loaded = policysmith.load(tmp_path / "policy")
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, result.policy.state_dict()[name])
        assert torch.equal(tensor, fresh[name]) == ("networks_2" in name), name


def test_a_stated_number_of_tasks_is_compared_with_the_space():
    config = {"model": {"type": "moe", "num_tasks": 4}}
    with pytest.raises(ConfigError, match="num_tasks: stated as 4, but the inputs give 3"):
        policysmith.build(config, **SPACES)


def test_a_space_without_tasks_is_refused():
    with pytest.raises(ConfigError, match=r"observation\.task"):
        policysmith.build(CONFIG, spaces.Box(-1, 1, (4,)), spaces.Discrete(2))


@pytest.mark.parametrize("rows", [1, 6])
def test_an_id_out_of_range_is_refused_in_a_policy_too(rows):
    policy = policysmith.build(CONFIG, **SPACES)
    obs = {"observation": torch.randn(rows, 4), "task": torch.full((rows,), 3)}
    with pytest.raises(ValueError, match="task id 3 is out of range"):
        policy(obs)
