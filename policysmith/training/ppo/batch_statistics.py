"""Batch normalisation under PPO: one set of running statistics from acting to the last epoch.

With statistics of each minibatch the new policy would differ from the old one before any step was taken. So the loss
uses the running ones, and they are refreshed once an iteration, between learning and acting.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from policysmith.graph.module_view import bare
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.stateful import StatefulActorCritic

__all__ = ["hold_statistics", "refresh_statistics"]


def batch_norms(policy: ActorCritic, held: bool = False) -> list[nn.Module]:
    """Every batch normalisation of the policy, or those of components whose weights are all held."""
    roots = [bare(component) for component in policy.components.values()]
    roots = [root for root in roots if not held or is_held(root)]
    return [module for root in roots for module in root.modules() if isinstance(module, _BatchNorm)]


def is_held(component: nn.Module) -> bool:
    """Whether a component has weights and none of them learns."""
    learns = [parameter.requires_grad for parameter in component.parameters()]
    return bool(learns) and not any(learns)


def hold_statistics(policy: ActorCritic) -> None:
    """After `policy.train()`: batch normalisations keep to their running statistics."""
    for module in batch_norms(policy):
        module.eval()


@torch.no_grad()
def refresh_statistics(policy: ActorCritic, leaves: list[Tensor], rows: int = 1024) -> None:
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
    if isinstance(policy, StatefulActorCritic):  # each row as a sequence of one step: what it remembers matters little
        policy.unroll(policy.observations.assemble([leaf.unsqueeze(1) for leaf in leaves]))
    else:
        policy.forward(policy.observations.assemble(leaves))
