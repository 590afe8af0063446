import numpy as np
import pytest
import torch

import policysmith
from policysmith.training.environments.make import make_vector
from policysmith.training.ppo.ppo import PPO
from policysmith.training.rollout.collector import Collector
from policysmith.training.sections import Environment
from tests.reference.advantages import slow_advantages


def _collect(autoreset, ends=False, steps=11, num_envs=2, length=3):
    section = Environment(
        "policysmith/Countdown-v0", num_envs, autoreset=autoreset, options={"length": length, "ends": ends}
    )
    environments = make_vector(section)
    policy = policysmith.build(
        {"model": "mlp"}, environments.single_observation_space, environments.single_action_space, seed=0
    )
    return policy, Collector(policy, environments, seed=0).collect(steps)


def _value(policy, step):
    return policy.get_value(torch.tensor([[float(step)]])).item()


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_a_truncated_step_bootstraps_from_the_final_observation(autoreset):
    policy, rollout = _collect(autoreset)
    ends = [t for t in range(11) if rollout.done[t, 0]]
    assert ends == ([2, 5, 8] if autoreset == "same_step" else [2, 6, 10])
    for t in ends:
        assert rollout.terminated[t, 0] == 0
        assert rollout.next_values[t, 0].item() == pytest.approx(_value(policy, 3), abs=1e-6)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("ends", [False, True])
def test_valid_rows_hold_the_same_advantages_under_both_autoreset_modes(autoreset, ends):
    policy, rollout = _collect(autoreset, ends)
    algorithm = PPO(gamma=0.9, gae_lambda=0.8)
    batch = algorithm.batches(policy, rollout)
    seen = {round(obs.item()): adv.item() for obs, adv in zip(batch.leaves[0], batch.columns.advantage, strict=True)}
    values = np.array([[_value(policy, s)] for s in range(4)])
    rewards, terminated = np.ones((3, 1)), np.array([[False], [False], [ends]])
    done = np.array([[False], [False], [True]])
    expected = slow_advantages(rewards, values[:3], values[1:], terminated, done, 0.9, 0.8)
    for step in range(3):  # whole episodes come first in the rollout, so the last one seen may be cut
        first = next(
            a.item() for o, a in zip(batch.leaves[0], batch.columns.advantage, strict=True) if round(o.item()) == step
        )
        assert first == pytest.approx(expected[step, 0], abs=1e-5)
    assert set(seen) == {0, 1, 2}, "the step that only resets is no row"


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_episodes_are_counted_with_their_returns_and_lengths(autoreset):
    _, rollout = _collect(autoreset, steps=12, num_envs=3)
    assert {(e.episode_return, e.length) for e in rollout.episodes} == {(3.0, 3)}
    assert len(rollout.episodes) == (12 if autoreset == "same_step" else 9)


def test_stored_log_probs_and_values_are_those_of_evaluate_actions():
    policy, rollout = _collect("same_step", steps=16, num_envs=4)
    log_prob, _, value = policy.evaluate_actions(rollout.observations[0].flatten(0, 1), rollout.actions[0].flatten())
    torch.testing.assert_close(log_prob, rollout.log_probs.flatten(), rtol=0, atol=1e-6)
    torch.testing.assert_close(value, rollout.values.flatten(), rtol=0, atol=1e-6)


def test_masks_from_the_info_reach_acting_and_learning(tmp_path):
    config = {
        "environment": {"id": "policysmith/MaskedBandit-v0", "num_envs": 4},
        "model": {"type": "mlp", "hidden": [32]},
        "training": {"type": "ppo", "total_steps": 8192, "rollout_steps": 64, "learning_rate": 0.003},
        "evaluation": {"episodes": 50},
    }
    result = policysmith.train(config, seed=0, progress=False)
    assert result.evaluation.mean > 0.9, "the first legal action is not learnt"
