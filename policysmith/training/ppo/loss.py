"""PPO's objective (arXiv 1707.06347, eq. 7–9): its terms, and the loss of a minibatch made of them. B is the minibatch.

In: the parts of a minibatch. Out: a loss of each, whose gradients add up; and figures that say how it goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from policysmith.training.distribution import Strategy
from policysmith.training.ppo.global_minibatches import GlobalMinibatch, Moments
from policysmith.training.ppo.minibatches import Columns, Minibatch
from policysmith.training.ppo.value_objectives import ValueObjective

__all__ = ["Evaluated", "PPOLoss", "PPOTerms", "clip_diagnostics", "explained_variance", "ppo_terms"]


class PPOLoss:
    """The loss of an iteration's minibatches: surrogate, value, entropy bonus, and what components add of their own.

    `clip` and `entropy_coef` are those of the iteration. `latest` is what the latest part of a minibatch gave.
    """

    latest: Evaluated

    def __init__(
        self,
        value: ValueObjective,
        clip: float,
        entropy_coef: float,
        value_coef: float,
        value_clip: float | None,
        normalize_advantage: bool,
    ) -> None:
        self.value, self.clip, self.entropy_coef = value, clip, entropy_coef
        self.value_coef, self.value_clip, self.normalize_advantage = value_coef, value_clip, normalize_advantage

    def of_parts(self, minibatch: GlobalMinibatch, accumulate: int, strategy: Strategy) -> Iterator[Tensor]:
        """The losses of a minibatch's parts, made one by one, each times its share in the whole."""
        rows = [len(part.columns.advantage) for part in minibatch.parts]
        shares = [(p, minibatch.weight * n / sum(rows)) for p, n in zip(minibatch.parts, rows, strict=True)]
        parts = strategy.evened(shares, accumulate)
        for index, (part, share) in enumerate(parts):
            yield strategy.loss(partial(self.of, part, minibatch.moments), share, final=index == len(parts) - 1)

    def of(self, part: Minibatch, moments: Moments | None) -> Tensor:
        """The loss of one part, whose advantages are normalised by the `moments` of the whole minibatch."""
        log_prob, entropy, value, aux, *edges = part.evaluate()
        old, advantage = part.columns, part.columns.advantage
        if self.normalize_advantage and moments is not None:
            # 1e-8 keeps advantages that are all alike from becoming 0 / 0
            advantage = (advantage - moments.mean) / (moments.std + 1e-8)
        terms = ppo_terms(
            log_prob, entropy, value, old.log_prob, advantage, old.returns, old.value, self.clip, self.value_clip
        )
        loss = terms.policy + self.value.loss(self.value_coef * terms.value, edges, part.targets)
        if self.entropy_coef:
            loss = loss - self.entropy_coef * terms.entropy
        for name, term in aux.items():
            if name.endswith("_loss"):
                loss = loss + term
        self.latest = Evaluated(part, terms, log_prob.detach(), aux, edges)
        return loss


class Evaluated(NamedTuple):
    """What a part of a minibatch gave: its terms, log-probabilities (B,), auxiliary figures and edges of the plan."""

    part: Minibatch
    terms: PPOTerms
    log_prob: Tensor
    aux: dict[str, Tensor]
    edges: list[Tensor]


class PPOTerms(NamedTuple):
    """Scalars: the clipped surrogate (to be minimised), the value loss, and the mean entropy."""

    policy: Tensor
    value: Tensor
    entropy: Tensor


def ppo_terms(
    log_prob: Tensor,
    entropy: Tensor,
    value: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    returns: Tensor,
    old_value: Tensor,
    clip: float,
    value_clip: float | None,
) -> PPOTerms:
    """Loss terms of one minibatch; every argument (B,).

    `value_clip` keeps the new value within that distance of the old one and takes the larger error (the PPO2 option);
    None is the plain squared error. The value loss carries the factor ½.
    """
    ratio = (log_prob - old_log_prob).exp()
    surrogate = torch.minimum(advantage * ratio, advantage * ratio.clamp(1.0 - clip, 1.0 + clip))
    error = (value - returns).square()
    if value_clip is not None:
        clipped = old_value + (value - old_value).clamp(-value_clip, value_clip)
        error = torch.maximum(error, (clipped - returns).square())
    return PPOTerms(-surrogate.mean(), 0.5 * error.mean(), entropy.mean())


@torch.no_grad()
def clip_diagnostics(log_prob: Tensor, old_log_prob: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Approximate KL divergence (the non-negative estimator k3 of Schulman's note) and the share of clipped ratios."""
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    return (ratio - 1.0 - log_ratio).mean(), ((ratio - 1.0).abs() > clip).float().mean()


def explained_variance(columns: Columns) -> float:
    """1 - Var[returns - values] / Var[returns]: 1 where values foretell returns, NaN where returns are all alike."""
    variance = columns.returns.var(correction=0)
    return float(1.0 - (columns.returns - columns.value).var(correction=0) / variance) if variance > 0 else float("nan")
