"""Rows with numbers that are not finite: left out, their episode ended, and nothing of them in what is learned from."""

import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv

import policysmith
from policysmith.training.environments.make import make_vector
from policysmith.training.ppo.ppo import PPO
from policysmith.training.rollout.collector import Collector, MemoryCollector
from policysmith.training.sections import Environment
from tests.reference.advantages import slow_advantages
from tests.training.nonfinite.ill_environment import REMEMBERING

STEPS = 60
MODES = ("same_step", "next_step")
BAD = (float("nan"), float("inf"), -float("inf"))


class Stubborn(VectorEnv):
    """A vector that knows no way to begin one environment anew."""

    def __init__(self, inner):
        self._inner, self.num_envs, self.metadata = inner, inner.num_envs, inner.metadata
        self.single_observation_space = inner.single_observation_space
        self.single_action_space = inner.single_action_space

    def reset(self, *, seed=None, options=None):
        assert options is None
        return self._inner.reset(seed=seed)

    def step(self, actions):
        return self._inner.step(actions)


def collect(autoreset, model="mlp", stubborn=False, vectorization="sync", **options):
    section = Environment("policysmith/Ill-v0", 2, vectorization, autoreset, options)
    environments = make_vector(section)
    spaces = environments.single_observation_space, environments.single_action_space
    policy = policysmith.build({"model": model}, *spaces, seed=0)
    kind = Collector if model == "mlp" else MemoryCollector
    try:
        return policy, kind(policy, Stubborn(environments) if stubborn else environments, seed=0).collect(STEPS)
    finally:
        environments.close()


def places(rollout, rows):
    """(episode, step) of the first environment's rows."""
    return [tuple(row.int().tolist()) for row in rollout.observations[0][rows[:, 0], 0, :2]]


@pytest.mark.parametrize("autoreset", MODES)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", ["reward", "observation", "both"])
def test_the_episode_ends_before_the_bad_number_and_the_environment_begins_anew(autoreset, bad, kind):
    _, rollout = collect(autoreset, kind=kind, bad=bad)
    for tensor in (*rollout.observations, rollout.rewards, rollout.values, rollout.next_values, rollout.log_probs):
        assert tensor.isfinite().all()
    assert places(rollout, rollout.skipped) == [(0, 3), (3, 3), (6, 3)], "the step that led there is left out"
    assert not (rollout.valid & rollout.skipped).any() and not rollout.terminated.any()
    assert {e.length for e in rollout.episodes} == {9}, "an episode that was ended is not told of"
    leaf = "observation" if kind == "observation" else "reward"
    assert [(e.environment, e.leaf, e.in_a_row) for e in rollout.nonfinite][:2] == [(0, leaf, 1), (1, leaf, 1)]
    assert rollout.nonfinite[0].step == 8, "of both environments, as episodes are counted"


@pytest.mark.parametrize("autoreset", MODES)
@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("kind", ["reward", "observation"])
def test_advantages_are_those_of_episodes_that_a_time_limit_cut_before_the_step_left_out(autoreset, stubborn, kind):
    """Each piece between steps left out by itself, with the value of where it stopped: nothing else reaches it."""
    policy, rollout = collect(autoreset, kind=kind, stubborn=stubborn)
    found = PPO(gamma=0.9, gae_lambda=0.8).batches(policy, rollout)
    observations, advantages = found.leaves[0], found.columns.advantage
    for episode in range(int(observations[:, 0].max())):  # the last one is cut by the rollout's end
        rows = observations[:, 0] == episode
        steps = observations[rows, 1].unique().int().tolist()
        assert steps == list(range(3 if episode % 3 == 0 else 9))
        seen = torch.tensor([[episode, t, 1.0] for t in range(len(steps) + 1)])
        values = policy.get_value(seen).detach().numpy()[:, None]
        ends = np.arange(len(steps))[:, None] == len(steps) - 1
        expected = slow_advantages(np.ones_like(ends, float), values[:-1], values[1:], ends & False, ends, 0.9, 0.8)
        for step in steps:
            mine = advantages[rows & (observations[:, 1] == step)]
            torch.testing.assert_close(mine, torch.full_like(mine, expected[step, 0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("autoreset", MODES)
def test_an_environment_that_cannot_be_begun_anew_is_stepped_on_with_its_rows_left_out(autoreset):
    _, rollout = collect(autoreset, stubborn=True)
    left_out = places(rollout, rollout.skipped)
    assert [p for p in left_out if p[0] == 0] == [(0, t) for t in range(3, 9)]
    assert len([e for e in rollout.nonfinite if e.environment == 0]) == len({p[0] for p in left_out})


@pytest.mark.parametrize("autoreset", MODES)
def test_a_first_observation_that_is_bad_is_asked_for_again(autoreset):
    _, rollout = collect(autoreset, kind="observation", at=0)
    assert {e.length for e in rollout.episodes} == {9} and len(rollout.nonfinite) >= 4
    valid = rollout.valid if rollout.valid is not None else torch.ones_like(rollout.rewards, dtype=torch.bool)
    assert 0 not in {int(e) % 3 for e in rollout.observations[0][valid][:, 0]}


@pytest.mark.parametrize("autoreset", MODES)
@pytest.mark.parametrize("ends", [False, True])
def test_a_bad_last_observation_costs_the_step_only_where_its_value_is_needed(autoreset, ends):
    _, rollout = collect(autoreset, kind="observation", at=9, every=1, ends=ends)
    last = [p for p in places(rollout, rollout.done.bool()) if p[1] == 8]
    kept = rollout.valid if rollout.valid is not None else torch.ones_like(rollout.rewards, dtype=torch.bool)
    learned = {p for p in places(rollout, kept) if p[1] == 8}
    assert last and (learned == set(last) if ends else not learned)
    assert bool(rollout.nonfinite) != ends


@pytest.mark.parametrize("autoreset", MODES)
def test_a_memory_begins_anew_with_the_environment(autoreset):
    policy, rollout = collect(autoreset, REMEMBERING, kind="observation")
    begins = places(rollout, rollout.first)
    assert set(begins) >= {(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)} and all(step == 0 for _, step in begins)
    algorithm = PPO(sequence_length=1, rollout_steps=STEPS, minibatches=STEPS * 2)
    rollout.states = {t: rollout.states[0] for t in range(STEPS)}
    for part in algorithm.batches(policy, rollout).minibatches(STEPS * 2):
        assert len(part.columns.advantage), "a sequence of nothing but steps left out has no mean"


def test_workers_in_processes_of_their_own_begin_anew_too():
    _, rollout = collect("same_step", vectorization="async", kind="reward")
    assert places(rollout, rollout.skipped) == [(0, 3), (3, 3), (6, 3)]
    assert {e.length for e in rollout.episodes} == {9}


def test_numbers_that_only_float64_can_hold_are_not_finite_here():
    _, rollout = collect("same_step", bad=1e300)
    assert rollout.rewards.isfinite().all() and rollout.nonfinite[0].found == 1e300
    _, rollout = collect("same_step", bad=1e30)
    assert rollout.skipped is None and not rollout.nonfinite, "large, but a number"


def test_episodes_that_end_so_are_counted_in_a_row_until_one_ends_by_itself():
    _, rollout = collect("same_step", every=1)
    assert [e.in_a_row for e in rollout.nonfinite if e.environment == 1] == list(range(1, 16))
    _, rollout = collect("same_step", every=2)
    assert {e.in_a_row for e in rollout.nonfinite} == {1}
