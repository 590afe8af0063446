"""PPO over tasks: trained experts learn from their own rows, frozen ones stay, and each is reported by itself."""

import inspect

import gymnasium as gym
import pytest
import torch

import policysmith
from policysmith.policy.factory import build_policy
from policysmith.registry import default_registry, part
from policysmith.skills.experts.parameter_names import expert_name
from policysmith.skills.training.progression import TaskProgression
from policysmith.skills.training.skill_ppo import NOT_OURS, SkillCollector, SkillPPO, normalized_by_skill
from policysmith.training.ppo.ppo import PPO
from tests.reference.networks import chosen, slow_actor_critic
from tests.reference.networks import weights_of as slow_weights
from tests.reference.optimizers import SlowAdam
from tests.reference.ppo import Share, each_row, slow_ppo_update, slow_rows
from tests.reference.skill_ppo import slow_by_skill, slow_figures
from tests.training.played import BOX, CHOICES, PLAIN, compare, played

from .test_progression import Counting

OPTIONS = {"rollout_steps": 48, "epochs": 2, "minibatches": 2, "learning_rate": 1e-2}


def setting(tasks=(0, 1), trained=(1,), **options):
    torch.manual_seed(0)
    environments = TaskProgression(Counting(count=4), tasks, max(tasks) + 1)
    model = part("model", {"type": "moe", "layer_width": 8, "num_layers": 2})
    policy = build_policy(
        model, environments.single_observation_space, environments.single_action_space, default_registry, seed=0
    )
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_(expert_name(name).number in trained)
    algorithm = part("algorithm", {"type": "skill_ppo", **OPTIONS, **options}).build()
    collector = SkillCollector(policy, environments, frozenset(trained), 0, 0)
    return algorithm, policy, collector, algorithm.optimizer(policy)


def weights_of(policy):
    return {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}


def test_frozen_experts_stay_and_trained_ones_learn():
    algorithm, policy, collector, optimizer = setting(trained=(1,))
    before = weights_of(policy)
    scalars = algorithm.update(policy, optimizer, collector.collect(algorithm.rollout_steps))
    for name, now in weights_of(policy).items():
        assert torch.equal(now, before[name]) == (expert_name(name).number == 0), name
    assert {"skills/1/approx_kl", "skills/1/entropy", "skills/1/value_loss", "skills/1/rows"} <= set(scalars)
    assert not any(name.startswith("skills/0/") for name in scalars)


def test_frames_are_the_rows_learned_from_by_expert():
    _, _, collector, _ = setting(tasks=(0, 1), trained=(1,))
    rollout = collector.collect(48)
    tasks = rollout.observations[1 if rollout.observations[0].dim() == 3 else 0]
    assert collector.frames == {1: int((tasks == 1).sum())} and 0 < collector.frames[1] < 48 * 4
    assert torch.equal(rollout.valid, tasks == 1)


def test_no_value_flows_from_a_task_to_the_one_before():
    """Where a task is done, its advantage ends: what the next task is worth must not matter."""
    algorithm, policy, collector, _ = setting(trained=(0, 1))
    rollout = collector.collect(48)
    before = algorithm.batches(policy, rollout).columns.advantage.clone()
    done = rollout.terminated.bool()
    assert done.any()
    rollout.next_values[done] += 1e6
    assert torch.equal(algorithm.batches(policy, rollout).columns.advantage, before)


def test_too_few_rows_teach_nothing():
    algorithm, policy, collector, optimizer = setting(tasks=(0, 0, 0, 1), trained=(1,))
    rollout = collector.collect(8)  # never gets there
    before = weights_of(policy)
    assert algorithm.update(policy, optimizer, rollout) == {"skills/rows": 0.0}
    assert all(torch.equal(now, before[name]) for name, now in weights_of(policy).items())


def test_advantages_are_normalised_among_the_rows_of_an_expert():
    torch.manual_seed(0)
    skills = torch.tensor([0] * 40 + [1] * 60 + [2] * 3)
    advantages = torch.where(skills == 1, torch.randn(103) * 100 + 50, torch.randn(103))
    normal = normalized_by_skill(advantages, skills)
    for skill in (0, 1):
        own = advantages[skills == skill]
        expected = ((own - own.mean()) / own.std()).clamp(-5, 5)
        torch.testing.assert_close(normal[skills == skill], expected)
    few = ((advantages - advantages.mean()) / advantages.std())[skills == 2].clamp(-5, 5)
    torch.testing.assert_close(normal[skills == 2], few)
    assert normalized_by_skill(torch.tensor([0.0] * 99 + [1e9]), torch.zeros(100)).max() == 5.0


def test_normalising_by_expert_replaces_the_other():
    algorithm, policy, collector, _ = setting(trained=(0, 1), advantage_per_skill=True)
    assert not algorithm.normalize_advantage
    batches = algorithm.batches(policy, collector.collect(48))
    for skill in (0, 1):
        own = batches.columns.advantage[batches.skills == skill]
        assert own.mean().abs() < 1e-5 and own.std() == pytest.approx(1.0, abs=1e-4)


def test_its_options_are_those_of_ppo_that_it_obeys_and_three_more():
    own, theirs = (set(inspect.signature(kind.__init__).parameters) for kind in (SkillPPO, PPO))
    assert own - theirs == {"advantage_per_skill", "window", "evaluation_episodes"}
    assert theirs - own == set(NOT_OURS)
    with pytest.raises(Exception, match="unknown option of 'skill_ppo'"):
        part("algorithm", {"type": "skill_ppo", "strategy": "ddp"})
    with pytest.raises(Exception, match=r"unknown option.*did you mean 'rollout_steps'"):
        part("algorithm", {"type": "skill_ppo", "rollout_step": 3})
    assert part("algorithm", "skill_ppo").encode()["loggers"] == [{"type": "json_lines"}]


TASKS = 4
SEEN = gym.spaces.Dict(observation=BOX, task=gym.spaces.Discrete(TASKS))


def of_tasks(rows_by_task, trained):
    """A rollout with so many rows of each task, mixed; those of trained experts count."""
    count = sum(rows_by_task)
    rollout = played(steps=count // 8, width=8, valid=False)
    mixed = torch.randperm(count, generator=torch.Generator().manual_seed(2))
    tasks = torch.arange(TASKS).repeat_interleave(torch.tensor(rows_by_task))[mixed].reshape(-1, 8)
    rollout.observations.append(tasks)
    rollout.valid = torch.isin(tasks, torch.tensor(trained))
    return rollout


def slow_network(weights, rollout, place):
    one_hot = torch.nn.functional.one_hot(rollout.observations[1][place], TASKS)
    return slow_actor_critic(weights, torch.cat([rollout.observations[0][place], one_hot]))


@pytest.mark.parametrize("per_skill", [True, False], ids=["by skill", "by minibatch"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_update_is_the_loop_over_the_rows_of_trained_experts(per_skill, accumulate):
    """Of so few rows that count two minibatches are made, not the four that are asked for, in parts or not."""
    rollout = (
        of_tasks((40, 24, 12, 52), trained=[0, 1, 2]) if per_skill else of_tasks((40, 40, 8, 40), trained=[0, 1, 2])
    )
    options = {"epochs": 2, "minibatches": 4, "clip": 0.15, "entropy_coef": 0.1, "gamma": 0.9, "gae_lambda": 0.8,
               "max_grad_norm": 0.5, "accumulate": accumulate}  # fmt: skip
    policy = policysmith.build({"model": PLAIN}, SEEN, CHOICES, seed=0)
    weights = slow_weights(policy)
    algorithm = SkillPPO(advantage_per_skill=per_skill, learning_rate=0.02, **options)
    torch.manual_seed(5)
    scalars = algorithm.update(policy, algorithm.optimizer(policy), rollout)
    reshape = slow_by_skill(rollout.observations[1], rollout.valid) if per_skill else (lambda rows: rows)
    look = lambda weights, rollout, place: {place: slow_network(weights, rollout, place)}  # noqa: E731
    slow_ppo_update(weights, SlowAdam(1e-5), [Share(rollout, 5)], each_row, look, rate=0.02, normalize=not per_skill,
                    smallest=32, reshape=reshape, **options)  # fmt: skip
    compare(policy, weights)
    rows = reshape(slow_rows(rollout, 0.9, 0.8))
    said = {}
    for place in each_row(rollout):
        logits, value = slow_network(weights, rollout, place)
        log_prob, entropy = chosen(logits, rollout.actions[0][place])
        said[place] = (log_prob.item(), entropy.item(), value.item())
    for skill in range(3):
        found = slow_figures(rows, said, lambda place, s=skill: int(rollout.observations[1][place]) == s)
        for name, value in found.items():
            assert scalars[f"skills/{skill}/{name}"] == pytest.approx(value, abs=5e-5), name
    assert "skills/3/rows" not in scalars and scalars["skills/rows"] == int(rollout.valid.sum())


def test_rows_with_numbers_that_are_not_finite_are_left_out_and_the_copy_begins_its_plan_anew():
    class Ill(Counting):
        """The second copy's every seventh reward is not a number."""

        steps = 0

        def step(self, actions, tasks):
            seen = super().step(actions, tasks)
            self.steps += 1
            rewards = seen.rewards.copy()
            if self.steps % 7 == 0:
                rewards[1] = float("nan")
            return seen._replace(rewards=rewards)

    torch.manual_seed(0)
    environments = TaskProgression(Ill(count=4), (0, 1), 2)
    model = part("model", {"type": "moe", "layer_width": 8, "num_layers": 2})
    spaces = environments.single_observation_space, environments.single_action_space
    policy = build_policy(model, *spaces, default_registry, seed=0)
    algorithm = part("algorithm", {"type": "skill_ppo", **OPTIONS, "nonfinite": {"max": 99}}).build()
    collector = SkillCollector(policy, environments, frozenset({0, 1}), 0, 0)
    rollout = collector.collect(48)
    assert [(e.environment, e.leaf) for e in rollout.nonfinite] == [(1, "reward")] * 6
    assert int((~rollout.valid).sum()) == 6 and rollout.rewards.isfinite().all()
    assert sum(collector.frames.values()) == 48 * 4 - 6
    optimizer = algorithm.optimizer(policy)
    algorithm.update(policy, optimizer, rollout)
    assert optimizer.guard.taken().steps == 0
    assert all(tensor.isfinite().all() for tensor in policy.state_dict().values())
