"""Proximal policy optimisation (arXiv 1707.06347) over vector environments. R rows of a rollout, B of a minibatch.

In: a policy and a collector. Out: a trained policy; after every iteration a report goes to whoever watches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from gymnasium.vector import VectorEnv

from policysmith.config.options import options_of
from policysmith.errors import ConfigError, Problem
from policysmith.graph.plan import Plan
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import register
from policysmith.training.algorithm import Algorithm
from policysmith.training.distribution import ALONE, Strategy
from policysmith.training.logging.report import Report
from policysmith.training.nonfinite.events import (
    EMPTY,
    check_events,
    left_out,
)
from policysmith.training.nonfinite.rollback import Rollback
from policysmith.training.optim.optimizers import Optimizers, optimize
from policysmith.training.optim.schedules import Schedule, schedule
from policysmith.training.ppo.advantages import generalized_advantages
from policysmith.training.ppo.global_minibatches import global_minibatches
from policysmith.training.ppo.loss import PPOLoss, clip_diagnostics, explained_variance
from policysmith.training.ppo.minibatches import Columns, Extra, RowBatches, SequenceBatches, keep_times
from policysmith.training.ppo.statistics import hold_statistics, take_statistics
from policysmith.training.ppo.value_objectives import Objective, value_objective
from policysmith.training.rollout.collector import Collector, MemoryCollector
from policysmith.training.rollout.rollout import Gatherer, Rollout
from policysmith.types import Count, NonNegative, NonNegativeInt, Positive, Share
from policysmith.wrappers import attach_all, metrics_of

__all__ = ["PPO"]

VALUE_COEF = 0.5


@register("ppo", slot="algorithm")
class PPO(Algorithm):
    """PPO with clipped ratios, GAE, minibatch epochs, gradient clipping and optional early stopping by KL divergence.

    Defaults follow the common CartPole recipe. Under torchrun every process has environments, rollouts and minibatches
    of these sizes.

    What is not finite is left out: rows of environments, whose episodes then end, and steps of the optimiser. After
    `nonfinite.max` of them in a row, training goes back to its last finite state and raises `NonFiniteError`.

    Args:
        total_steps: Transitions of all environments together; under torchrun of all processes too.
        rollout_steps: Transitions of each environment between two updates.
        epochs: How often an update goes through its rollout.
        minibatches: Into how many parts an epoch divides the rollout; with memory, its sequences.
        learning_rate: The rate, or a schedule of progress.
        gamma: The discount of a step.
        gae_lambda: How far advantages trust rewards before values: 0 one step, 1 the whole return (arXiv 1506.02438).
        clip: How far a ratio may leave 1 before its gradient stops; a number or a schedule of progress.
        value_clip: How far a value may leave what it was when acting; null does not bound it.
        value_coef: The weight of half the squared error of the value.
        entropy_coef: The weight of the entropy bonus; a number or a schedule of progress.
        max_grad_norm: The largest norm of all gradients together; null does not bound it.
        target_kl: An update ends early where the estimated divergence from the acting policy is greater; null never
            does.
        normalize_advantage: Whether each minibatch has its advantages shifted and scaled to mean 0 and deviation 1.
        solved_at: The mean return at which training ends.
        sequence_length: How many steps a policy with memory learns over at once; null takes the whole rollout.
        burn_in: How many steps before a sequence make its state anew; 0 takes the state it acted with.
        value: What the value learns from: returns (`scalar`), or how games end (`multi_head`).
    """

    @options_of(Algorithm)
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
        value_coef: NonNegative = VALUE_COEF,
        entropy_coef: Schedule = 0.0,
        max_grad_norm: Positive | None = 0.5,
        target_kl: Positive | None = None,
        normalize_advantage: bool = True,
        solved_at: float | None = None,
        sequence_length: Count | None = None,
        burn_in: NonNegativeInt = 0,
        value: Objective = "scalar",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.total_steps, self.rollout_steps = total_steps, rollout_steps
        self.epochs, self.minibatches = epochs, minibatches
        self.gamma, self.gae_lambda, self.value_clip = gamma, gae_lambda, value_clip
        self.value_coef, self.max_grad_norm, self.target_kl = value_coef, max_grad_norm, target_kl
        self.normalize_advantage, self.solved_at = normalize_advantage, solved_at
        self.sequence_length, self.burn_in = sequence_length or rollout_steps, burn_in
        _check_sequences(rollout_steps, self.sequence_length, burn_in)
        self.value = value_objective(value)
        if self.value.edges:
            _refuse_scalar_options(value_coef, value_clip)
        self._learning_rate, self._clip = schedule(learning_rate), schedule(clip)
        self._entropy_coef = schedule(entropy_coef)

    def check(self, plan: Plan) -> None:
        """Raise `ConfigError` for a plan without what `value` trains, or what `optimizers` name."""
        self.value.check(plan)
        super().check(plan)

    def optimizer(self, policy: ActorCritic) -> Optimizers:
        """The optimiser that `learn` steps: Adam with ε = 1e-5, as PPO's reference has it, where none is stated.

        Raises `ConfigError` for a policy without what `value` trains.
        """
        self.check(policy.plan)
        return optimize(policy.components, self.usual, self.optimizers, eps=1e-5, extra=list(policy.parameters()))

    def collector(self, policy: ActorCritic, environments: VectorEnv, seed: int | None, step: int) -> Collector:
        """What gathers the rollouts that `learn` asks for."""
        if policy.has_memory:
            keep = keep_times(self.rollout_steps, self.sequence_length, self.burn_in)
            return MemoryCollector(policy, environments, seed, step, keep)
        return Collector(policy, environments, seed, step)

    def learn(
        self,
        policy: ActorCritic,
        collector: Gatherer,
        optimizer: Optimizers,
        watch: Callable[[Report], bool],
        iteration: int = 0,
        strategy: Strategy = ALONE,
    ) -> None:
        """Train until `total_steps`, or until `watch(report)` says stop by returning True.

        With a strategy of several processes, the collector counts what all of them play.
        """
        shared = {} if strategy is ALONE else {"strategy": strategy}  # an algorithm of another's may not take any
        per_iteration = self.rollout_steps * collector.count
        total = max(1, self.total_steps // per_iteration)
        with Rollback([policy], optimizer, self.nonfinite.max, strategy.world) as finite:
            while iteration < total:
                finite.keep(collector.step)
                progress = iteration / total
                policy.eval()
                with strategy.whole():
                    rollout = collector.collect(self.rollout_steps)
                check_events(rollout.nonfinite, self.nonfinite.max)
                policy.train()
                hold_statistics(policy)
                with attach_all(policy.components.values(), optimizer):  # anew each time: a component may be swapped
                    scalars = self.update(policy, optimizer, rollout, progress, **shared)
                scalars |= metrics_of(policy.components)
                iteration += 1
                with strategy.whole():
                    take_statistics(policy, rollout, strategy.world, self.sync_batch_norm)
                scalars |= left_out(rollout.nonfinite, finite.settle(EMPTY not in scalars))
                report = Report(collector.step, iteration, rollout.episodes, scalars, rollout.nonfinite)
                if watch(report):
                    break
        policy.eval()

    def update(
        self,
        policy: ActorCritic,
        optimizer: Optimizers,
        rollout: Rollout,
        progress: float = 0.0,
        *,
        strategy: Strategy = ALONE,
    ) -> dict[str, float]:
        """All epochs over one rollout; returns scalars by tag, the means of all processes.

        Without a row to learn from, on any process, nothing is learned.
        """
        own = rollout.valid is None or bool(rollout.valid.any())
        if not strategy.world.any(own):
            return {EMPTY: 1.0}
        if not own:  # of several processes this one steps along with rows that do not count
            rollout = replace(rollout, valid=None)
        optimizer.advance(progress, self._learning_rate(progress))
        loss, batches = self._loss(progress), self.batches(policy, rollout)
        epochs = 0
        for _ in range(self.epochs):
            epochs += 1
            parts = list(batches.in_parts(self.minibatches, self.accumulate))
            for minibatch in global_minibatches(parts, self.minibatches, strategy.world, own):
                optimizer.step(loss.of_parts(minibatch, self.accumulate, strategy), self.max_grad_norm)
            part, terms, log_prob, aux, edges = loss.latest
            measured = torch.stack(clip_diagnostics(log_prob, part.columns.log_prob, loss.clip))
            kl, clipped = strategy.world.mean(measured, own * len(log_prob)).unbind()
            if self.target_kl is not None and kl > self.target_kl:
                break
        scalars = {
            "losses/policy_loss": terms.policy.item(),
            "losses/value_loss": terms.value.item(),
            "losses/entropy": terms.entropy.item(),
            "losses/approx_kl": kl.item(),
            "losses/clipfrac": clipped.item(),
            "losses/explained_variance": explained_variance(batches.columns),
            "charts/learning_rate": optimizer.learning_rate,
            "charts/epochs": float(epochs),
            **self.value.scalars(edges, part.targets),
            **{f"aux/{name}": term.item() for name, term in aux.items() if term.numel() == 1},
        }
        return strategy.world.means(scalars)

    def batches(self, policy: ActorCritic, rollout: Rollout) -> RowBatches | SequenceBatches:
        """A rollout with advantages and returns, ready to be cut into minibatches."""
        advantages = generalized_advantages(
            rollout.rewards,
            rollout.values,
            rollout.next_values,
            rollout.terminated,
            rollout.done,
            self.gamma,
            self.gae_lambda,
        )
        columns = Columns(rollout.log_probs, advantages, advantages + rollout.values, rollout.values)
        extra = Extra(self.value.edges, self.value.targets(rollout))
        if policy.has_memory:
            return SequenceBatches(policy, rollout, columns, self.sequence_length, self.burn_in, extra)
        return self.rows(policy, rollout, columns, extra)

    def _loss(self, progress: float) -> PPOLoss:
        """The loss of an iteration, with what schedules give for its progress."""
        clip, entropy_coef = self._clip(progress), self._entropy_coef(progress)
        return PPOLoss(self.value, clip, entropy_coef, self.value_coef, self.value_clip, self.normalize_advantage)

    def rows(self, policy: ActorCritic, rollout: Rollout, columns: Columns, extra: Extra) -> RowBatches:
        """Transitions one by one, of a policy without memory."""
        return RowBatches(policy, rollout, columns, extra)


def _check_sequences(rollout_steps: int, length: int, burn_in: int) -> None:
    if rollout_steps % length:
        message = f"rollout_steps={rollout_steps} is not a multiple of sequence_length={length}"
        raise ConfigError([Problem("training.sequence_length", message)])
    if burn_in > length:
        message = f"{burn_in} steps are more than sequence_length={length} holds"
        raise ConfigError([Problem("training.burn_in", message)])


def _refuse_scalar_options(coef: float, clip: float | None) -> None:
    """`value_coef` and `value_clip` would say nothing of an objective that has weights of its own."""
    stated = {"value_coef": (coef, VALUE_COEF), "value_clip": (clip, None)}
    problems = [
        Problem(
            f"training.{name}", f"belongs to value: scalar, found {found}: leave it out, and weigh in 'value' itself"
        )
        for name, (found, default) in stated.items()
        if found != default
    ]
    if problems:
        raise ConfigError(problems)
