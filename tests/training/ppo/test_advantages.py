import numpy as np
import pytest
import torch

from policysmith.training.ppo.advantages import generalized_advantages
from tests.reference.advantages import slow_advantages


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_definition_episode_by_episode(seed):
    rng = np.random.default_rng(seed)
    shape = (17, 3)
    rewards, values, next_values = rng.normal(size=(3, *shape))
    terminated = rng.random(shape) < 0.15
    done = terminated | (rng.random(shape) < 0.15)
    fast = generalized_advantages(
        *map(torch.tensor, (rewards, values, next_values)),
        torch.tensor(terminated * 1.0),
        torch.tensor(done * 1.0),
        0.97,
        0.9,
    )
    slow = slow_advantages(rewards, values, next_values, terminated, done, 0.97, 0.9)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-12, atol=1e-12)


def test_lambda_one_gives_returns_minus_values():
    rewards, values = torch.ones(3, 1), torch.tensor([[0.5], [0.2], [0.1]])
    next_values = torch.tensor([[0.2], [0.1], [9.0]])
    ends = torch.tensor([[0.0], [0.0], [1.0]])
    advantages = generalized_advantages(rewards, values, next_values, ends, ends, 1.0, 1.0)
    torch.testing.assert_close(advantages + values, torch.tensor([[3.0], [2.0], [1.0]]))
