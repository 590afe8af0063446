import gymnasium as gym
import numpy as np
import pytest
import torch

import policysmith
from policysmith.errors import ConfigError
from policysmith.training.rollout.evaluation import evaluate_policy
from policysmith.training.sections import Environment


def _policy():
    config = {"environment": {"id": "CartPole-v1"}, "model": {"type": "mlp", "hidden": [8]}}
    return policysmith.build(config, seed=0)


def test_plays_as_many_whole_episodes_as_asked():
    result = evaluate_policy(_policy(), Environment("CartPole-v1"), episodes=21)
    assert result.episodes == 21 and len(result.lengths) == 21
    assert result.returns == tuple(float(n) for n in result.lengths), "a reward of 1 a step"
    assert result.mean == np.mean(result.returns) and result.std == np.std(result.returns)


def test_both_autoreset_modes_judge_alike():
    same, later = (
        evaluate_policy(_policy(), Environment("CartPole-v1", autoreset=mode), episodes=8)
        for mode in ("same_step", "next_step")
    )
    assert same.returns == later.returns, "eight environments, one episode each, the same seeds"


def test_leaves_mode_and_random_generator_alone():
    policy = _policy().train()
    before = torch.get_rng_state()
    evaluate_policy(policy, Environment("CartPole-v1"), episodes=2, deterministic=False)
    assert policy.training and torch.equal(torch.get_rng_state(), before)


def test_sampled_and_deterministic_differ_and_repeat():
    policy, section = _policy(), Environment("CartPole-v1")
    sampled = [evaluate_policy(policy, section, 6, deterministic=False).returns for _ in range(2)]
    assert sampled[0] == sampled[1]
    assert sampled[0] != evaluate_policy(policy, section, 6).returns


def test_a_policy_without_an_environment_is_judged_in_one_that_is_named():
    made = gym.make("CartPole-v1")
    bare = policysmith.build(
        {"model": {"type": "mlp", "hidden": [8]}}, made.observation_space, made.action_space, seed=0
    )
    with pytest.raises(ConfigError, match="no environment to evaluate it in: name one"):
        policysmith.evaluate(bare, episodes=2)
    named = policysmith.evaluate(bare, episodes=4, environment="CartPole-v1")
    assert named.returns == policysmith.evaluate(_policy(), episodes=4).returns
    section = {"id": "CartPole-v1", "options": {"max_episode_steps": 5}}
    assert max(policysmith.evaluate(bare, episodes=4, environment=section).lengths) == 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Acrobot-v1", r"gives observation \(6,\); the policy reads observation \(4,\)"),
        ("CartPole-v2", "CartPole-v2"),
        ("MountainCar-v0", r"gives observation \(2,\)"),
    ],
)
def test_an_environment_of_other_spaces_is_refused(name, words):
    with pytest.raises(ConfigError, match=words):
        policysmith.evaluate(_policy(), environment=name)


def test_an_environment_of_other_actions_is_refused():
    policy = policysmith.build({"model": "mlp"}, gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(3))
    with pytest.raises(ConfigError, match=r"takes actions of Discrete\(2\); the policy gives those of Discrete\(3\)"):
        policysmith.evaluate(policy, environment="CartPole-v1")
