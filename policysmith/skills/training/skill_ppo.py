"""PPO for skills: only rows in which a trained expert acted are learned from. R rows.

In: a policy of experts, some of them frozen, and a task progression. Out: as PPO, with diagnostics of each expert.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from policysmith.config.options import options_of
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import register
from policysmith.training.ppo.minibatches import Columns, Extra, Minibatch, RowBatches
from policysmith.training.ppo.ppo import PPO
from policysmith.training.rollout.collector import Collector, RecordedSteps
from policysmith.training.rollout.rollout import Rollout
from policysmith.types import Count

__all__ = ["SkillCollector", "SkillPPO"]

SMALLEST = 32  # rows: of fewer, no minibatch is made and no advantage normalised by itself
FARTHEST = 5.0  # normalised advantages


# Of PPO's options those that a run of its own obeys, and a skill's worker does not: it has `success` in place of
# `solved_at`, saves by the clock, and is one process whose policy has no memory.
NOT_OURS = ("solved_at", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "callbacks", "ema",
            "sequence_length", "burn_in", "strategy", "sync_batch_norm")  # fmt: skip


@register("skill_ppo", slot="algorithm", skills=True)
class SkillPPO(PPO):
    """PPO over the tasks of a skill: every task has its own horizon, and only experts that are trained learn.

    Options are those of `ppo` that have a meaning here, and: `advantage_per_skill` normalises advantages among the
    rows of one expert, where there are 32 or more, and cuts them at ±5; `window` is how many plans the success rate is
    of, and `evaluation_episodes` how many are played to be sure of it.

    Args:
        advantage_per_skill: Whether advantages are normalised among the rows of one expert.
        window: How many plans the success rate is of.
        evaluation_episodes: How many plans are played to be sure of the success rate.
    """

    @options_of(PPO, NOT_OURS, total_steps=1_000_000, loggers=["json_lines"], entropy_coef=0.01)
    def __init__(
        self,
        *,
        advantage_per_skill: bool = False,
        window: Count = 100,
        evaluation_episodes: Count = 100,
        **options: Any,
    ) -> None:
        if advantage_per_skill:
            options["normalize_advantage"] = False  # once is enough
        super().__init__(**options)
        self.advantage_per_skill, self.window = advantage_per_skill, window
        self.evaluation_episodes = evaluation_episodes

    def update(
        self, policy: ActorCritic, optimizer: Any, rollout: Rollout, progress: float = 0.0, **shared: Any
    ) -> dict[str, float]:
        """All epochs over the rows of trained experts; without enough of them nothing is learned."""
        assert rollout.valid is not None
        rows = int(rollout.valid.sum())
        if rows < SMALLEST:
            return {"skills/rows": float(rows)}
        scalars = super().update(policy, optimizer, rollout, progress, **shared)
        batches = self.batches(policy, rollout)
        assert isinstance(batches, SkillBatches)
        return {**scalars, "skills/rows": float(rows), **batches.diagnostics()}

    def rows(self, policy: ActorCritic, rollout: Rollout, columns: Columns, extra: Extra) -> SkillBatches:
        """The rows of trained experts, ready to be cut into minibatches."""
        return SkillBatches(policy, rollout, columns, extra, self.advantage_per_skill)


class SkillBatches(RowBatches):
    """Rows (R,) of trained experts, and which expert each belongs to."""

    def __init__(
        self, policy: ActorCritic, rollout: Rollout, columns: Columns, extra: Extra, advantage_per_skill: bool
    ) -> None:
        super().__init__(policy, rollout, columns, extra)
        self.skills = rollout.observations[task_leaf(policy)][rollout.valid].long()
        if advantage_per_skill:
            advantage = normalized_by_skill(self.columns.advantage, self.skills)
            self.columns = self.columns._replace(advantage=advantage)

    def in_parts(self, count: int, parts: int) -> Iterator[list[Minibatch]]:
        """About equal minibatches, fewer than `count` where they would be too small."""
        return super().in_parts(min(count, max(1, len(self.skills) // SMALLEST)), parts)

    @torch.no_grad()
    def diagnostics(self) -> dict[str, float]:
        """Of each expert: KL divergence from the policy that acted, entropy, value loss and mean advantage."""
        log_prob, entropy, value, *_ = self._run(self.leaves)
        log_ratio = log_prob - self.columns.log_prob
        measured = {
            "approx_kl": log_ratio.exp() - 1.0 - log_ratio,
            "entropy": entropy,
            "value_loss": 0.5 * (value - self.columns.returns).square(),
            "advantage": self.columns.advantage,
        }
        scalars = {}
        for skill in self.skills.unique().tolist():
            own = self.skills == skill
            scalars[f"skills/{skill}/rows"] = float(own.sum())
            scalars |= {f"skills/{skill}/{name}": float(numbers[own].mean()) for name, numbers in measured.items()}
        return scalars


class SkillCollector(Collector):
    """A collector that marks the rows of trained experts as those to learn from, and counts them by expert.

    `frames` are the rows that each has learned from, by local index.
    """

    def __init__(
        self, policy: ActorCritic, environments: Any, trained: frozenset[int], seed: int | None, step: int
    ) -> None:
        super().__init__(policy, environments, seed, step)
        self._trained = torch.tensor(sorted(trained), device=policy.device)
        self.frames: Counter[int] = Counter()

    def _stack(self, record: RecordedSteps) -> Rollout:
        rollout = super()._stack(record)
        tasks_TN = rollout.observations[task_leaf(self.policy)].long()
        trained = torch.isin(tasks_TN, self._trained)
        rollout.valid = trained if rollout.valid is None else trained & rollout.valid
        skills, rows = tasks_TN[rollout.valid].unique(return_counts=True)
        self.frames.update(dict(zip(skills.tolist(), rows.tolist(), strict=True)))
        return rollout


def normalized_by_skill(advantage_R: Tensor, skills_R: Tensor) -> Tensor:
    """(R,) with mean 0 and deviation 1 among the rows of each expert; of experts with few rows, among all rows."""

    def normal(rows: Tensor, of: Tensor) -> Tensor:
        std, mean = torch.std_mean(of) if len(of) > 1 else (rows.new_ones(()), rows.new_zeros(()))
        return ((rows - mean) / (std + 1e-8)).clamp(-FARTHEST, FARTHEST)

    result = normal(advantage_R, advantage_R)
    for skill in skills_R.unique():
        own = skills_R == skill
        if int(own.sum()) >= SMALLEST:
            result[own] = normal(advantage_R[own], advantage_R[own])
    return result


def task_leaf(policy: ActorCritic) -> int:
    """Which leaf of the observation holds the expert."""
    return next(i for i, leaf in enumerate(policy.observations.leaves) if leaf.path == ("task",))
