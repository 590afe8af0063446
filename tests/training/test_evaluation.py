import numpy as np
import torch

import policysmith
from policysmith.config.experiment import Environment
from policysmith.training.evaluation import evaluate_policy


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
