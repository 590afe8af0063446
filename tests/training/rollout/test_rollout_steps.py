"""Rollouts against each environment stepped alone: what a row holds, in both ways to begin the next episode."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import policysmith
from policysmith.training.rollout.collector import Collector, MemoryCollector
from tests.reference.networks import chosen, slow_actor_critic, slow_remembering, weights_of
from tests.reference.rollout import slow_steps
from tests.training.played import BOX, CHOICES, PLAIN, REMEMBERING

WIDTH, STEPS, SEED = 3, 9, 5
MODES = {mode.name.lower(): mode for mode in AutoresetMode}


class Drawn(gym.Env):
    """Everything is drawn: what is seen, what is legal, rewards, ends (some with a score); cut off after four steps."""

    observation_space, action_space = BOX, CHOICES

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length = 0
        return self._look(), {"action_mask": self._legal()}

    def step(self, action):
        assert self.legal[action]
        self.length += 1
        ends = self.np_random.random() < 0.25
        told = {"score": self.np_random.normal()} if ends else {}
        reward = float(self.np_random.normal() + action)
        return self._look(), reward, ends, not ends and self.length == 4, {"action_mask": self._legal(), **told}

    def _look(self):
        return self.np_random.uniform(-2, 2, 3).astype(np.float32)

    def _legal(self):
        self.legal = (self.np_random.random(3) < 0.5).astype(np.int8)
        self.legal[self.np_random.integers(3)] = 1
        return self.legal.copy()


def collected(model, mode, kind, **options):
    """Two rollouts, one after the other, as one; and what the twin says of each environment."""
    policy = policysmith.build({"model": model}, BOX, CHOICES, seed=0).eval()
    environments = SyncVectorEnv([Drawn] * WIDTH, autoreset_mode=MODES[mode])
    torch.manual_seed(1)
    collector = kind(policy, environments, SEED, **options)
    parts = [collector.collect(STEPS) for _ in range(2)]
    assert collector.step == 2 * STEPS * WIDTH
    actions = torch.cat([part.actions[0] for part in parts])
    told = [slow_steps(Drawn(), SEED + n, actions[:, n], mode == "next_step") for n in range(WIDTH)]
    return weights_of(policy), parts, actions, told


def rows_of(parts, told):
    """(row of the product's, column, row of the twin's, rollout, step in it) of every step."""
    for n, steps in enumerate(told):
        for t, step in enumerate(steps):
            yield t, n, step, parts[t // STEPS], t % STEPS


@pytest.mark.parametrize("mode", MODES)
def test_rows_are_what_each_environment_gave(mode):
    _, parts, _, told = collected(PLAIN, mode, Collector)
    ends = cut = 0
    for _, n, step, rollout, t in rows_of(parts, told):
        assert torch.equal(rollout.observations[0][t, n], torch.as_tensor(step.seen))
        assert rollout.masks[0][t, n].tolist() == [bool(legal) for legal in step.legal]
        assert rollout.rewards[t, n].item() == pytest.approx(step.reward, abs=1e-6)
        assert bool(rollout.terminated[t, n]) is bool(step.terminated) and bool(rollout.done[t, n]) is bool(step.done)
        assert (rollout.valid is None and step.valid) or bool(rollout.valid[t, n]) is step.valid
        score = torch.nan if rollout.scores is None else rollout.scores[t, n].item()
        assert score == pytest.approx(step.score, abs=1e-6, nan_ok=True)
        ends, cut = ends + step.terminated, cut + (step.done and not step.terminated)
    assert ends > 2 and cut > 2
    expected = [
        (STEPS * WIDTH * (t // STEPS) + (t % STEPS + 1) * WIDTH, *told[n][t].episode)
        for t in range(2 * STEPS) for n in range(WIDTH) if told[n][t].episode
    ]  # fmt: skip
    found = [episode for part in parts for episode in part.episodes]
    assert [(e.step, e.length) for e in found] == [(step, length) for step, _, length in expected]
    assert [e.episode_return for e in found] == pytest.approx([total for _, total, _ in expected], abs=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_values_and_probabilities_are_the_networks(mode):
    weights, parts, actions, told = collected(PLAIN, mode, Collector)
    for whole, n, step, rollout, t in rows_of(parts, told):
        logits, value = slow_actor_critic(weights, torch.as_tensor(step.seen))
        assert rollout.values[t, n].item() == pytest.approx(value.item(), abs=1e-5)
        log_prob = chosen(logits, actions[whole, n], step.legal)[0]
        assert rollout.log_probs[t, n].item() == pytest.approx(log_prob.item(), abs=1e-5)
        if step.valid and not step.terminated:
            after = slow_actor_critic(weights, torch.as_tensor(step.after[-1]))[1]
            assert rollout.next_values[t, n].item() == pytest.approx(after.item(), abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_a_memory_is_carried_through_episodes_and_rollouts(mode):
    """Each value is that of the episode so far, each value of what a step led to of the episode up to there."""
    weights, parts, actions, told = collected(REMEMBERING, mode, MemoryCollector, keep=range(STEPS))
    count = 0
    for whole, n, step, rollout, t in rows_of(parts, told):
        if not step.valid:
            continue
        assert bool(rollout.first[t, n]) is step.first
        seen = torch.as_tensor(np.stack(step.after))
        said, _ = slow_remembering(weights, seen, [False] * len(seen))
        logits, value = said[-2]
        assert rollout.values[t, n].item() == pytest.approx(value.item(), abs=1e-5)
        log_prob = chosen(logits, actions[whole, n], step.legal)[0]
        assert rollout.log_probs[t, n].item() == pytest.approx(log_prob.item(), abs=1e-5)
        if not step.terminated:
            assert rollout.next_values[t, n].item() == pytest.approx(said[-1][1].item(), abs=1e-5)
        if not step.first:
            _, state = slow_remembering(weights, seen[:-2], [False] * (len(seen) - 2))
            for key, tensor in state.items():
                torch.testing.assert_close(rollout.states[t][f"memory/{key}"][n, 0], tensor.float(), atol=1e-5, rtol=0)
        count += 1
    assert count > 2 * STEPS
