import threading
from concurrent.futures import ThreadPoolExecutor

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


def test_nobody_else_sees_an_evaluation_draw_and_it_sees_nobody(monkeypatch):
    """Also while it goes on: what it draws is its own, not the global generator's for a while."""
    policy, section, seen = _policy(), Environment("CartPole-v1"), []
    step = gym.vector.SyncVectorEnv.step

    def drawing_meanwhile(self, actions):
        other = threading.Thread(target=lambda: seen.append(torch.rand(1).item()))  # as a training beside it
        other.start(), other.join()
        return step(self, actions)

    alone = evaluate_policy(policy, section, 4, deterministic=False).returns
    monkeypatch.setattr(gym.vector.SyncVectorEnv, "step", drawing_meanwhile)
    torch.manual_seed(7)
    assert evaluate_policy(policy, section, 4, deterministic=False).returns == alone
    torch.manual_seed(7)
    assert seen == torch.rand(len(seen)).tolist()


def test_two_threads_judge_as_one():
    policies, section = [_policy() for _ in range(4)], Environment("CartPole-v1")

    def sampled(index):
        return evaluate_policy(policies[index], section, 4, deterministic=False, seed=index).returns

    alone = [sampled(index) for index in range(4)]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(sampled, range(4))) == alone
    assert torch.equal(torch.get_rng_state(), before)


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
