"""PPO over tasks: trained experts learn from their own rows, frozen ones stay, and each is reported by itself."""

import inspect

import pytest
import torch

from policysmith.policy.factory import build_policy
from policysmith.registry import default_registry, part
from policysmith.skills.experts.names import expert_name
from policysmith.skills.training.progression import TaskProgression
from policysmith.skills.training.skill_ppo import NOT_OURS, SkillCollector, SkillPPO, normalized_by_skill
from policysmith.training.online import PPO

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
