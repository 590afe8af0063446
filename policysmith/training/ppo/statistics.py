"""Running statistics of observations under PPO: they change once an iteration, between learning and acting.

With statistics of each minibatch the new policy would differ from the old one before any step was taken. So the loss
uses the running ones, of normalisers and of batch normalisations alike, as they were when the policy acted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from policysmith.policy.actor_critic import ActorCritic
from policysmith.training.distribution import World
from policysmith.training.distribution.batch_norms import average_statistics, batch_norms, synchronised
from policysmith.training.rollout.rollout import Rollout

__all__ = ["hold_statistics", "take_statistics"]


def hold_statistics(policy: ActorCritic) -> None:
    """After `policy.train()`: batch normalisations keep to their running statistics."""
    for module in batch_norms(policy):
        module.eval()


def take_statistics(policy: ActorCritic, rollout: Rollout, world: World, sync_batch_norm: bool) -> None:
    """Between learning and acting: running normalisers and batch normalisations see the rollout's observations.

    Normalisers see those of all ranks. Batch normalisations do where they are synchronised, else their own statistics
    of each rank's are averaged.
    """
    leaves = [leaf.flatten(0, 1) for leaf in rollout.observations]
    if policy.has_statistics:
        policy.update_statistics(policy.observations.assemble(_usable(leaves, rollout, world)))
    with synchronised(policy, world) if sync_batch_norm else nullcontext():
        _refresh(policy, _filled(leaves, rollout))
    average_statistics(policy, world)


def _usable(leaves: list[Tensor], rollout: Rollout, world: World) -> list[Tensor]:
    """The observations of all ranks, without rows that were left out."""
    if not world.any(rollout.skipped is not None):
        return world.rows(leaves)
    used = torch.ones_like(rollout.rewards, dtype=torch.bool) if rollout.skipped is None else ~rollout.skipped
    *rows, used_R = world.rows([*leaves, used.flatten()])
    return [leaf[used_R] for leaf in rows]


def _filled(leaves: list[Tensor], rollout: Rollout) -> list[Tensor]:
    """As many rows, with others in place of those left out: ranks that synchronise make as many passes."""
    if rollout.skipped is None:
        return leaves
    used = (~rollout.skipped).flatten().nonzero().flatten()
    if not len(used):
        return leaves
    rows = torch.arange(len(leaves[0]), device=used.device) % len(used)
    return [leaf[used[rows]] for leaf in leaves]


@torch.no_grad()
def _refresh(policy: ActorCritic, leaves: list[Tensor], rows: int = 1024) -> None:
    """Take the observations (leaves with R rows) into the running statistics, `rows` at a time."""
    if not batch_norms(policy):
        return
    policy.train()
    for module in batch_norms(policy, held=True):
        module.eval()
    for parts in zip(*(leaf.split(rows) for leaf in leaves), strict=True):
        if len(parts[0]) > 1:  # one row has no variance
            _see(policy, parts)
    policy.eval()


def _see(policy: ActorCritic, leaves: Sequence[Tensor]) -> None:
    if policy.has_memory:  # each row as a sequence of one step: what it remembers matters little
        policy.unroll(policy.observations.assemble([leaf.unsqueeze(1) for leaf in leaves]))
    else:
        policy.forward(policy.observations.assemble(leaves))
