"""Training over sequences: the loss sees what acting saw, wherever episodes begin and rollouts are cut."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

import policysmith
from policysmith.errors import ConfigError
from policysmith.training.ppo.ppo import PPO
from policysmith.training.rollout.collector import MemoryCollector
from tests.policy.test_stateful import REGISTRY


class Counting(gymnasium.Env[Any, Any]):
    """The observation counts steps of the episode; episodes last `length` steps, or are cut off there."""

    observation_space = gymnasium.spaces.Box(-100, 100, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, length: int, ends: bool) -> None:
        self.length, self.ends, self.t = length, ends, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return self._look(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        over = self.t >= self.length
        return self._look(), 1.0, over and self.ends, over and not self.ends, {}

    def _look(self) -> np.ndarray:
        return np.array([self.t / 5, self.length / 5], np.float32)


def collected(autoreset: str = "same_step", ends: bool = False, steps: int = 12, keep: Any = (0, 4, 8)) -> Any:
    components = {
        "memory": {"type": "leaky", "in_keys": "observation"},
        "policy": {"type": "action_head", "in_keys": "memory"},
        "state_value": {"type": "value_head", "in_keys": "memory"},
    }
    policy = policysmith.build(
        {"model": {"type": "graph", "components": components}},
        Counting.observation_space,
        Counting.action_space,
        registry=REGISTRY,
        seed=0,
    ).eval()
    assert policy.has_memory
    mode = AutoresetMode.SAME_STEP if autoreset == "same_step" else AutoresetMode.NEXT_STEP
    environments = SyncVectorEnv([lambda n=n: Counting(n, ends) for n in (3, 5)], autoreset_mode=mode)
    torch.manual_seed(0)
    collector = MemoryCollector(policy, environments, seed=0, keep=keep)
    return policy, collector, collector.collect(steps)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_first_marks_the_first_observation_of_every_episode(autoreset: str) -> None:
    _, _, rollout = collected(autoreset)
    begins = (rollout.observations[0][..., 0] == 0) & (rollout.valid if rollout.valid is not None else True)
    assert torch.equal(rollout.first, begins)
    assert rollout.first.sum() > 4


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize(("length", "burn_in"), [(12, 0), (4, 0), (4, 2), (4, 4), (3, 1), (1, 0)])
def test_the_first_loss_sees_the_policy_that_acted(autoreset: str, length: int, burn_in: int) -> None:
    algorithm = PPO(rollout_steps=12, sequence_length=length, burn_in=burn_in, minibatches=2)
    keep = [max(0, t - burn_in) for t in range(0, 12, length)]
    policy, collector, _ = collected(autoreset, keep=keep)
    rollout = collector.collect(12)  # the second rollout begins in the middle of episodes
    seen = 0
    for part in algorithm.batches(policy, rollout).minibatches(algorithm.minibatches):
        log_prob, entropy, value, aux = part.evaluate()
        torch.testing.assert_close(log_prob, part.columns.log_prob)
        torch.testing.assert_close(value, part.columns.value)
        assert entropy.shape == log_prob.shape and aux == {}
        seen += len(log_prob)
    assert seen == (24 if rollout.valid is None else int(rollout.valid.sum()))


def test_burn_in_makes_the_state_anew_without_gradient() -> None:
    algorithm = PPO(rollout_steps=12, sequence_length=4, burn_in=4, minibatches=1)
    policy, collector, _ = collected(keep=(0, 4))
    rollout = collector.collect(12)
    with torch.no_grad():
        policy.components["memory"].module.back.bias += 0.5  # the policy has learnt since it acted
    fresh, _, _ = policy.unroll(rollout.observations[0].movedim(1, 0), _at(rollout, 0), rollout.first.movedim(1, 0))
    (part,) = algorithm.batches(policy, rollout).minibatches(1)
    torch.manual_seed(1)
    burned = sorted(part.evaluate()[2].tolist())
    (stale,) = PPO(rollout_steps=12, sequence_length=12, minibatches=1).batches(policy, rollout).minibatches(1)
    # Four steps of burn-in cover every episode here, so values are those of the whole rollout unrolled anew.
    np.testing.assert_allclose(burned, sorted(stale.evaluate()[2].tolist()), atol=1e-5)
    assert fresh.shape == (2, 12, 3)
    without = PPO(rollout_steps=12, sequence_length=4, minibatches=1)
    rollout.states[8] = rollout.states[4]
    (kept,) = without.batches(policy, rollout).minibatches(1)
    assert not np.allclose(sorted(kept.evaluate()[2].tolist()), burned, atol=1e-5)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_a_cut_off_episode_is_valued_with_its_own_memory(autoreset: str) -> None:
    policy, _, rollout = collected(autoreset)
    t = next(t for t in range(12) if rollout.done[t, 0])
    observations = torch.tensor([[s / 5, 3 / 5] for s in range(4)])[None]
    value = policy.unroll(observations, None, None)[1][0]
    assert rollout.terminated[t, 0] == 0
    assert rollout.next_values[t, 0].item() == pytest.approx(value[3].item(), abs=1e-6)
    assert rollout.values[t, 0].item() == pytest.approx(value[2].item(), abs=1e-6)


def test_the_last_step_is_valued_with_the_memory_of_the_rollout() -> None:
    _, collector, rollout = collected(steps=10)
    following = collector.collect(1)
    cut = rollout.done[-1].bool()
    torch.testing.assert_close(rollout.next_values[-1][~cut], following.values[0][~cut])
    assert not cut.all()


def _at(rollout: Any, t: int) -> dict[str, Tensor]:
    return rollout.states[t]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rollout_steps": 10, "sequence_length": 4}, "rollout_steps=10 is not a multiple of sequence_length=4"),
        ({"rollout_steps": 8, "sequence_length": 4, "burn_in": 5}, "burn_in: 5 steps are more than sequence_length=4"),
    ],
)
def test_sequences_that_do_not_fit_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PPO(**options)


class Recall(gymnasium.Env[Any, Any]):
    """A cue is shown once; after four blank steps the action must name it: reward 1 or 0."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.cue, self.t = int(self.np_random.integers(2)), 0
        return np.array([1.0, 2.0 * self.cue - 1.0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        over = self.t == 5
        return np.zeros(2, np.float32), float(over and action == self.cue), over, False, {}


gymnasium.register("policysmith-tests/Recall-v0", entry_point=Recall)


def test_a_memory_learns_what_a_memoryless_policy_cannot() -> None:
    def trained(trunk: str) -> float:
        components = {
            "trunk": {"type": trunk, "in_keys": "observation", **({"size": 16} if trunk == "leaky" else {})},
            "policy": {"type": "action_head", "in_keys": "trunk"},
            "state_value": {"type": "value_head", "in_keys": "trunk"},
        }
        config = {
            "seed": 1,
            "environment": {"id": "policysmith-tests/Recall-v0", "num_envs": 16},
            "model": {"type": "graph", "components": components},
            "training": {
                "type": "ppo", "total_steps": 24_000, "rollout_steps": 40, "sequence_length": 20, "gamma": 0.95,
                "learning_rate": 3.0e-3, "entropy_coef": 0.01,
            },
            "evaluation": {"episodes": 100},
        }  # fmt: skip
        return policysmith.train(config, registry=REGISTRY, progress=False).evaluation.mean

    assert trained("leaky") > 0.95
    assert trained("mlp") < 0.75
