"""Which strategy a run takes: what its configuration says, where there are several processes."""

from __future__ import annotations

from typing import Any

from torch import nn

from policysmith.errors import ConfigError, Problem
from policysmith.policy.actor_critic import ActorCritic
from policysmith.training.distribution.sharded import Sharded
from policysmith.training.distribution.strategy import ALONE, Replicated, Strategy
from policysmith.training.distribution.world import World

__all__ = ["strategy_of"]


def strategy_of(algorithm: Any, world: World, policy: ActorCritic, extra: nn.Module | None = None) -> Strategy:
    """The strategy of `training.strategy`, `ddp` where none is stated; one process needs none.

    The policy, and what an objective learns besides it, go to this rank's device and get the weights of rank 0. Raises
    `ConfigError` for an algorithm that has no such option, and for `fsdp` where more than the policy learns.
    """
    if world.size == 1:
        return ALONE
    if not hasattr(algorithm, "strategy"):
        message = f"{type(algorithm).__name__} has no option 'strategy', so {world.size} processes can't share its work"
        raise ConfigError([Problem("training.type", f"{message}; run it without torchrun")])
    for module in (policy, extra):
        if module is not None:
            module.to(world.device)
    if algorithm.strategy != "fsdp":
        return Replicated(world, policy, extra)
    if extra is not None and any(True for _ in extra.parameters()):
        message = "'fsdp' shards the policy alone, and this objective learns networks of its own; choose ddp"
        raise ConfigError([Problem("training.strategy", message)])
    return Sharded(world, policy)
