"""Proximal policy optimisation (arXiv 1707.06347) over vector environments. R rows of a rollout, B of a minibatch.

In: a policy and a collector. Out: a trained policy; after every iteration a report goes to whoever watches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import register
from policysmith.training.advantages import generalized_advantages
from policysmith.training.batch_statistics import hold_statistics, refresh_statistics
from policysmith.training.objectives import clip_diagnostics, ppo_terms
from policysmith.training.optimizer import Adam
from policysmith.training.rollout import Collector, Episode, Rollout
from policysmith.training.schedules import Schedule, schedule

__all__ = ["PPO", "Report"]

Count = Annotated[int, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]


class Report(NamedTuple):
    """What one iteration tells: where training is, finished episodes, and scalars by TensorBoard tag."""

    step: int
    iteration: int
    episodes: list[Episode]
    scalars: dict[str, float]


class Batch(NamedTuple):
    """Rows of a rollout, flat: leaves of observations, actions and masks, and five columns."""

    leaves: list[Tensor]
    log_prob: Tensor
    advantage: Tensor
    returns: Tensor
    value: Tensor


@register("ppo", slot="algorithm")
class PPO:
    """PPO with clipped ratios, GAE, minibatch epochs, gradient clipping and optional early stopping by KL divergence.

    `total_steps` counts transitions of all environments; `rollout_steps` is per environment. `learning_rate`, `clip`
    and `entropy_coef` are numbers or schedules of progress. Defaults follow the common CartPole recipe.
    """

    def __init__(
        self,
        total_steps: Count = 100_000,
        rollout_steps: Count = 128,
        epochs: Count = 4,
        minibatches: Count = 4,
        learning_rate: Schedule = 2.5e-4,
        gamma: Share = 0.99,
        gae_lambda: Share = 0.95,
        clip: Schedule = 0.2,
        value_clip: Positive | None = None,
        value_coef: NonNegative = 0.5,
        entropy_coef: Schedule = 0.0,
        max_grad_norm: Positive | None = 0.5,
        target_kl: Positive | None = None,
        normalize_advantage: bool = True,
        solved_at: float | None = None,
        checkpoint_every: Count | None = None,
    ) -> None:
        self.total_steps, self.rollout_steps = total_steps, rollout_steps
        self.epochs, self.minibatches = epochs, minibatches
        self.gamma, self.gae_lambda, self.value_clip = gamma, gae_lambda, value_clip
        self.value_coef, self.max_grad_norm, self.target_kl = value_coef, max_grad_norm, target_kl
        self.normalize_advantage, self.solved_at, self.checkpoint_every = (
            normalize_advantage,
            solved_at,
            checkpoint_every,
        )
        self._learning_rate, self._clip = schedule(learning_rate), schedule(clip)
        self._entropy_coef = schedule(entropy_coef)

    def optimizer(self, policy: ActorCritic) -> Adam:
        """The optimiser that `learn` steps: Adam with ε = 1e-5, as PPO's reference has it."""
        return Adam([p for p in policy.parameters() if p.requires_grad], eps=1e-5)

    def learn(
        self,
        policy: ActorCritic,
        collector: Collector,
        optimizer: Adam,
        watch: Callable[[Report], bool],
        iteration: int = 0,
    ) -> None:
        """Train until `total_steps`, or until `watch(report)` says stop by returning True."""
        per_iteration = self.rollout_steps * collector.count
        total = max(1, self.total_steps // per_iteration)
        while iteration < total:
            progress = iteration / total
            policy.eval()
            rollout = collector.collect(self.rollout_steps)
            policy.train()
            hold_statistics(policy)
            scalars = self.update(policy, optimizer, rollout, progress)
            iteration += 1
            _take_statistics(policy, rollout)
            if watch(Report(collector.step, iteration, rollout.episodes, scalars)):
                break
        policy.eval()

    def update(self, policy: ActorCritic, optimizer: Adam, rollout: Rollout, progress: float = 0.0) -> dict[str, float]:
        """All epochs over one rollout; returns scalars by tag."""
        clip, entropy_coef = self._clip(progress), self._entropy_coef(progress)
        optimizer.learning_rate = self._learning_rate(progress)
        batch = self.batch(rollout)
        evaluate = policy.evaluating(len(rollout.masks))
        rows = batch.log_prob.shape[0]
        size = math.ceil(rows / self.minibatches)
        epochs = 0
        for _ in range(self.epochs):
            epochs += 1
            for part in _minibatches(batch, size):
                log_prob, entropy, value = evaluate(*part.leaves)
                advantage = part.advantage
                if self.normalize_advantage and len(advantage) > 1:
                    std, mean = torch.std_mean(advantage)
                    advantage = (advantage - mean) / (std + 1e-8)
                terms = ppo_terms(
                    log_prob, entropy, value, part.log_prob, advantage, part.returns, part.value, clip, self.value_clip
                )
                loss = terms.policy + self.value_coef * terms.value
                if entropy_coef:
                    loss = loss - entropy_coef * terms.entropy
                optimizer.step(loss, self.max_grad_norm)
            kl, clipped = clip_diagnostics(log_prob.detach(), part.log_prob, clip)
            if self.target_kl is not None and kl > self.target_kl:
                break
        return {
            "losses/policy_loss": terms.policy.item(),
            "losses/value_loss": terms.value.item(),
            "losses/entropy": terms.entropy.item(),
            "losses/approx_kl": kl.item(),
            "losses/clipfrac": clipped.item(),
            "losses/explained_variance": _explained_variance(batch),
            "charts/learning_rate": optimizer.learning_rate,
            "charts/epochs": float(epochs),
        }

    @torch.no_grad()
    def batch(self, rollout: Rollout) -> Batch:
        """A rollout's valid rows with advantages and returns, flat."""
        advantages = generalized_advantages(
            rollout.rewards,
            rollout.values,
            rollout.next_values,
            rollout.terminated,
            rollout.done,
            self.gamma,
            self.gae_lambda,
        )
        returns = advantages + rollout.values
        leaves = [*rollout.observations, *rollout.actions, *(_over_rows(m, advantages) for m in rollout.masks)]
        columns = [rollout.log_probs, advantages, returns, rollout.values]
        if rollout.valid is not None:
            return Batch([leaf[rollout.valid] for leaf in leaves], *(column[rollout.valid] for column in columns))
        return Batch([leaf.flatten(0, 1) for leaf in leaves], *(column.flatten() for column in columns))


def _minibatches(batch: Batch, size: int) -> Iterator[Batch]:
    """Random minibatches: rows are shuffled once an epoch, then sliced."""
    rows = batch.log_prob.shape[0]
    order = torch.randperm(rows, device=batch.log_prob.device)
    leaves = [leaf.index_select(0, order) for leaf in batch.leaves]
    columns = torch.stack(batch[1:]).index_select(1, order)
    for start in range(0, rows, size):
        end = min(start + size, rows)
        yield Batch([leaf[start:end] for leaf in leaves], *columns[:, start:end].unbind(0))


def _over_rows(mask: Tensor, like: Tensor) -> Tensor:
    """A mask (T, 1 or N, A) for every row."""
    return mask.expand(*like.shape, mask.shape[-1])


def _take_statistics(policy: ActorCritic, rollout: Rollout) -> None:
    """Between learning and acting: running normalisers and batch normalisations see the rollout's observations."""
    leaves = [leaf.flatten(0, 1) for leaf in rollout.observations]
    if policy.has_statistics:
        policy.update_statistics(policy.observations.assemble(leaves))
    refresh_statistics(policy, leaves)


def _explained_variance(batch: Batch) -> float:
    variance = batch.returns.var(correction=0)
    return float(1.0 - (batch.returns - batch.value).var(correction=0) / variance) if variance > 0 else float("nan")
